"""What training needs, made once at start (`polaris.run.setup`) and again for each stage (`polaris.recipe.stage`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polaris.checkpoint.store import Kept
from polaris.config.schema import RunConfig
from polaris.data.pass_rates import PassRates
from polaris.data.plateau import Plateau
from polaris.data.prompt_statistics import PromptStatistics
from polaris.learn.core import ResultSets
from polaris.learn.learner import Learner
from polaris.learn.success_buffer import SuccessBuffer
from polaris.observe.console import Console
from polaris.run.profiler import Profiler
from polaris.run.tracker import TemperatureTracker
from polaris.sampling.context import SamplingContext
from polaris.sampling.stage_source import StageSource
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainContext:
    """One stage of training: where groups come from, who learns from them, and what is remembered of each prompt."""

    source: StageSource
    learner: Learner
    held_out: tuple[Prompt, ...]
    pass_rates: PassRates
    """Pass rate of every prompt drawn so far."""
    successes: SuccessBuffer
    """Correct rollouts that rescue later failures."""
    tracker: TemperatureTracker
    """Moves the temperature of a stage that tracks diversity."""
    results: ResultSets
    """Intermediate results of correct rollouts, for the process reward."""
    console: Console
    profiler: Profiler
    all_prompts: tuple[Prompt, ...]
    """Every prompt of the run, those that were dropped included."""
    statistics: PromptStatistics
    """What training has seen of each prompt besides."""
    plateau: Plateau
    """When recent pass rates are measured anew."""
    stage: int = 0
    """Counted from 0."""

    @property
    def sampling(self) -> SamplingContext:
        """The source's: engine and grader for phases that draw samples of their own."""
        return self.source.context

    @property
    def config(self) -> RunConfig:
        """The stage's configuration, which the learner has too."""
        return self.sampling.config

    @property
    def temperature(self) -> float:
        """The sampling temperature of the next step."""
        track = self.tracker.track
        return track.temperature if track else self.config.rollout.temperature

    def with_config(self, config: RunConfig) -> TrainContext:
        """The same with another configuration, such as a stage's."""
        source = replace(self.source, context=replace(self.sampling, config=config))
        return replace(self, source=source, learner=replace(self.learner, config=config))

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What a checkpoint holds besides policy, optimizer, generators and state."""
        return (self.pass_rates, self.statistics, self.plateau, self.successes, self.results, self.tracker, self.source.carried)
