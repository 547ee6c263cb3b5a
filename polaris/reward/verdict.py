"""What grading one response ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VerdictKind = Literal["correct", "wrong", "no_answer", "ungradable"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` says why in a few words; `answer` is what was graded, None where there was none.

    "ungradable" is our limit (too long, too slow, crashed) and earns nothing: otherwise a policy learns to hide there.
    """

    kind: VerdictKind
    reason: str = ""
    answer: str | None = None

    @property
    def reward(self) -> float:
        return 1.0 if self.kind == "correct" else 0.0
