"""Gold answers as the sets give them: which types are answers at all, and which of them no response could ever equal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from polaris.data.prompt import GroundTruth
from polaris.errors import Refused
from polaris.reward.grade import accepted
from polaris.reward.screen import MAX_CHARS, refusal
from polaris.reward.spelling import respell


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


def ungradable_reason(ground_truth: GroundTruth) -> str | None:
    """Why no response could be compared with any of the alternatives, in a few words; None where one could."""
    alternatives = ground_truth if isinstance(ground_truth, tuple) else (ground_truth,)
    reasons = [_reason(alternative) for alternative in alternatives]
    return None if None in reasons else next(iter(reasons), "no answer")


def _reason(alternative: str | int | float) -> str | None:
    if isinstance(alternative, float) and not math.isfinite(alternative):
        return "not a finite number"
    text = str(alternative).strip()
    if not text:
        return "empty"
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    golds = accepted(alternative)
    if not golds:
        return "nothing to compare"
    refused = refusal(respell(golds[0]))
    return f"refused by the grader's screen: {refused}" if refused else None
