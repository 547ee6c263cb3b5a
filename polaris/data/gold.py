"""Gold answers as the sets give them: which values are answers, and which rows have none that can be graded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

from polaris.errors import Refused
from polaris.reward.alternatives import alternatives, flat
from polaris.reward.grade import ungradable_reason
from polaris.types import GroundTruth

Check = Callable[[GroundTruth], str | None]
"""Why no response could earn anything with a ground truth, in a few words; None where one could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that cannot be used. `id` is "" if it has none; `source` is `file:row`; `reason` is a few words; `answer` is the gold
    answer, shortened, if that is the reason."""

    id: str
    source: str
    reason: str
    answer: str = ""


class BadRow(Refused):
    """A row without a usable problem or answer. The message names place and remedy; `reason` is the same for all rows of a kind."""

    def __init__(self, source: str, found: str, remedy: str, reason: str = "") -> None:
        super().__init__(f"{source} has {found}; {remedy}")
        self.reason = reason or found


def read_answers(value: Any, source: str) -> GroundTruth:
    """The accepted answers; () if the set says null. A null among several is left out; a list in a text gives alternatives
    (`polaris.reward.alternatives`).

    Raises:
        BadRow: naming `source`, for anything but text, numbers, or a list of those.
    """
    if value is None:
        return ()
    items = flat(value) if isinstance(value, list) else [value]
    answers = None if items is None else [item for item in items if item is not None]
    if answers is None or not all(isinstance(answer, str | int | float | Decimal) and not isinstance(answer, bool) for answer in answers):
        expected = "expected text, a number, or a list of those; fix or remove the row"
        raise BadRow(source, f"the answer {shortened(repr(value))}", expected, "an answer that is not text, a number or a list of those")
    read = tuple(one for answer in answers for one in _read(answer))
    return read[0] if read == (value,) else read


def _read(answer: str | float | Decimal) -> tuple[str | int | float, ...]:
    return alternatives(answer) if isinstance(answer, str) else (str(answer),) if isinstance(answer, Decimal) else (answer,)


def shortened(text: str, longest: int = 60) -> str:
    """The text, cut to at most `longest` characters with `...` at its end."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def rejected_answer(
    row_id: str, source: str, ground_truth: GroundTruth, check: Check = ungradable_reason, fault: str = ""
) -> Rejected | None:
    """The data error of a gold answer that no response could equal: `fault`, if its row has one, else what `check` says; None if one
    could."""
    reason = fault or check(ground_truth)
    answer = "" if ground_truth in ((), "") else shortened(repr(ground_truth))
    return Rejected(id=row_id, source=source, reason=reason, answer=answer) if reason else None


def by_reason(rows: Sequence[Rejected], show: int) -> Iterator[str]:
    """Lines: each reason with its count, the most frequent first, and its first `show` rows; a single row stands beside its reason."""
    rows = sorted(rows, key=lambda row: row.reason)
    groups = [(reason, list(found)) for reason, found in groupby(rows, key=lambda row: row.reason)]
    for reason, found in sorted(groups, key=lambda group: -len(group[1])):
        places = [f"{at(row.source, row.id)} {row.answer}".rstrip() for row in found]
        if len(found) == 1:
            yield f"{places[0]}: {reason}"
        else:
            yield f"{reason}: {len(found)} rows"
            yield from (f"  {place}" for place in places[:show])
            if len(found) > show:
                yield f"  and {len(found) - show} more"


def at(source: str, row_id: str) -> str:
    """A row by its place, and its id if it has one."""
    return f"{source} (id {row_id})" if row_id else source
