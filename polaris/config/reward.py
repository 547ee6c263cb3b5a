"""How responses are graded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polaris.config.bounds import at_most, positive


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """How answers are graded."""

    workers: int | None = None
    """Grading processes per rank; by default one per two of the CPU cores that a rank of the machine has, at most 16."""
    timeout_s: float = 5.0
    """Longest time for one answer; then its worker is killed and replaced."""
    require_thinking: bool | Literal["auto"] = "auto"
    """A response without `</think>` has no answer; `auto`: where the chat template opens thinking, or else most of the model's own
    responses do. What stands in front of `</think>` counts in no case."""

    def __post_init__(self) -> None:
        positive("reward", workers=self.workers, timeout_s=self.timeout_s)
        at_most("reward", 1024, workers=self.workers)
