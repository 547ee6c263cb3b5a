"""What responses earn, and how it is found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from polaris.config.bounds import at_least, at_most, finite, positive
from polaris.config.names import instead
from polaris.config.own_code import DOOR, Option
from polaris.config.process import ProcessConfig
from polaris.doors import short
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """What responses earn, and how it is found out."""

    function: str | dict[str, float] = field(default="math", metadata=DOOR)
    """`math`, `exact`, `multiple_choice`, `reasoning_gym`, `format`, `length`, or `module:name` for a function or class of yours; or a
    table of several with their weights, as in { math = 1.0, format = 0.2 }: the sum is what a response earns, and the first says whether
    it is solved."""
    options: dict[str, dict[str, Option]] = field(default_factory=dict)
    """A table of arguments for each name in reward.function, such as [reward.options.length] buffer = 1024."""
    answer: str = "boxed"
    """Which part of a response is its answer, for `math`, `exact` and `reasoning_gym`: the last "boxed" or "<answer>", what follows the
    last "####" or "Answer:", the "whole" of it, or a regular expression with one group, whose last match counts."""
    success_above: float | None = None
    """A response is solved if the first reward is above this; for one that returns other numbers than 0 and 1 (`reasoning_gym` without
    it: 1)."""
    workers: int | None = None
    """Grading processes per rank; by default one per two of the CPU cores that a rank of the machine has, at most 16."""
    timeout_s: float = 5.0
    """Longest time for one answer; then its worker is killed and replaced."""
    memory_mib: int = 1024
    """Address space of a process that runs code of yours; more for one that imports torch or the like."""
    require_thinking: bool | Literal["auto"] = "auto"
    """A response without `</think>` has no answer; `auto`: where the chat template opens thinking, or else most of the model's own
    responses do. What stands in front of `</think>` counts in no case."""
    process: ProcessConfig = field(default_factory=ProcessConfig)

    def __post_init__(self) -> None:
        positive("reward", workers=self.workers, timeout_s=self.timeout_s)
        at_most("reward", 1024, workers=self.workers)
        at_least("reward", 256, memory_mib=self.memory_mib)
        finite("reward", success_above=self.success_above, **{f"function.{short(name)}": weight for name, weight in self.weights.items()})
        if not self.weights:
            raise Refused('reward.function names no reward; write function = "math", or a table of names and weights')
        known = [short(name) for name in self.weights]
        unknown = next((name for name in self.options if name not in known), None)
        if unknown is not None:
            raise Refused(f"reward.options.{unknown} belongs to no reward of reward.function; {instead(unknown, known, '')}")

    def check_process(self) -> None:
        """Raise `Refused` where a wrong response could earn as much as a correct one by the first reward; records of older runs may."""
        if not self.process.most:
            return
        first, weight = next(iter(self.weights.items()))
        if self.process.most >= weight:
            raise Refused(
                f"reward.process.most = {self.process.most:g} must be below {weight:g}, the weight of reward.function.{short(first)}: a "
                "wrong response must earn less than a correct one"
            )
        if first == "reasoning_gym" or self.success_above is not None:
            partial = "reward.success_above" if self.success_above is not None else "reasoning_gym"
            raise Refused(
                f"reward.process adds to what a wrong response earns, and with {partial} that may be more than 0 already, so that it could "
                "earn more than a correct one; leave one of the two out"
            )

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each reward by its name, the one that decides first."""
        return {self.function: 1.0} if isinstance(self.function, str) else self.function
