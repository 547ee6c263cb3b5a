"""Gold answers as the sets give them: which types are answers at all, and the rows that have none that can be graded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polaris.data.prompt import GroundTruth
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row without a usable answer: `source` is `file:row`, `reason` a few words."""

    id: str
    source: str
    reason: str


def read_answers(value: Any, source: str) -> GroundTruth:
    """The accepted answers, () where the set says null. Raises `ValueError` naming `source` for anything but text, numbers, or a list."""
    if value is None:
        return ()
    answers = value if isinstance(value, list) else [value]
    if not all(isinstance(answer, str | int | float) and not isinstance(answer, bool) for answer in answers):
        raise Refused(f"{source} has the answer {value!r}; expected text, a number, or a list of those; fix or remove the row")
    return tuple(answers) if isinstance(value, list) else value
