"""What training needs, made once at start (`polaris.run.setup`) and again for each stage (`polaris.recipe.stage`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polaris.checkpoint.store import Kept
from polaris.config.schema import RunConfig
from polaris.data.pass_rates import PassRates
from polaris.learn.learner import Learner
from polaris.learn.success_buffer import SuccessBuffer
from polaris.observe.console import Console
from polaris.sampling.clock import Clock
from polaris.sampling.colocated import Colocated
from polaris.sampling.context import SamplingContext
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainContext:
    """One stage of training: where groups come from, who learns from them, and what is remembered of each prompt."""

    config: RunConfig
    """The stage's; `sampling`, `source` and `learner` have it too (`with_config`)."""
    sampling: SamplingContext
    source: Colocated
    learner: Learner
    held_out: tuple[Prompt, ...]
    pass_rates: PassRates
    """Pass rate of every prompt drawn so far."""
    successes: SuccessBuffer
    """Correct rollouts that rescue later failures."""
    console: Console
    clock: Clock
    stage: int = 0
    """Counted from 0."""

    def with_config(self, config: RunConfig) -> TrainContext:
        """The same with another configuration, such as a stage's."""
        sampling, learner = replace(self.sampling, config=config), replace(self.learner, config=config)
        return replace(self, config=config, sampling=sampling, source=replace(self.source, context=sampling), learner=learner)

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What a checkpoint holds besides policy, optimizer, generators and state."""
        return (self.pass_rates, self.successes)
