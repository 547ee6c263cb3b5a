"""The process reward: what a wrong response earns for intermediate results that correct responses to its prompt have too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polaris.config.bounds import at_least
from polaris.errors import Refused

UNDERLINE = "underline"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """CORE (POLARIS V2): a wrong answer earns by how far its marked intermediate results agree with those of correct responses."""

    most: float = 0.0
    """Most that a wrong response earns so (published: 0.5); 0 leaves the process reward out."""
    marker: str = UNDERLINE
    """What marks an intermediate result: "underline" for \\underline{...}, or a regular expression whose one group is the result."""
    marks: int = 32
    """A response that marks more different results than this earns nothing for them, and if correct leaves nothing behind."""
    stored: int = 64
    """Results that are kept for each prompt; of more, the most frequent."""
    denominator: Literal["growing", "frozen"] = "growing"
    """Number of results that a share is of: of all that are known now, or of the first ones: those of the difficulty pass, or else of the
    first step with a correct response."""

    def __post_init__(self) -> None:
        if not 0 <= self.most < 1:
            raise Refused(f"reward.process.most = {self.most} must lie in [0, 1): a wrong response must earn less than a correct one")
        at_least("reward.process", 1, marks=self.marks, stored=self.stored)
