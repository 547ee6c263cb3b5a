"""What grading one response ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VerdictKind = Literal["correct", "wrong", "no_answer", "ungradable"]

TIMEOUT, CRASHED = "timeout", "crashed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` says why in a few words; `answer` is what was graded, None where there was none.

    "ungradable" is text that may not be parsed, or that took a grading process its life; neither earns anything.
    """

    kind: VerdictKind
    reason: str = ""
    answer: str | None = None

    @property
    def lost(self) -> bool:
        """The text was legal and the limit ours, so the response says nothing about its policy: neither reward nor advantage."""
        return self.kind == "ungradable" and self.reason in (TIMEOUT, CRASHED)

    @property
    def reward(self) -> float:
        return 1.0 if self.kind == "correct" else 0.0
