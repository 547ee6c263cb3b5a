"""One training step, in the order of the data flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.checkpoint.store import TrainState
from polaris.config.schema import RunConfig
from polaris.distributed.waiting import LayerTimes
from polaris.errors import RunFailed
from polaris.learn.curate import TrainingBatch, curate
from polaris.learn.update import UpdateResult
from polaris.run.context import TrainContext
from polaris.run.machine import machine_facts
from polaris.run.memory import advised
from polaris.run.peak import PeakMemory
from polaris.run.record import diversity_facts, step_record
from polaris.run.tracker import diversity_of
from polaris.sampling.source import GroupSource
from polaris.sampling.stage_source import scarcity

SPLIT = (
    "the GPU's memory was exhausted; the update was done with packs of half the size. Halve trainer.tokens_per_pack to spare its first try "
    "(docs/memory.md has what else takes less)"
)
_HALF = "; float16 also overflows where activations pass 65,504, and bfloat16 does not"


class NonFiniteRun(RunFailed):
    """Too many updates in a row had a non-finite loss or gradient."""


def train_step(context: TrainContext, state: TrainState) -> tuple[TrainState, dict[str, Any], TrainingBatch]:
    """Groups -> training batch -> update -> weight sync; returns the next state, its record and the batch.

    Pass rates, statistics, stored successes, their results and the temperature of later steps change only when the step is done, by what
    the policy itself has drawn.

    Raises:
        GenerationInterrupted: a stop was requested during the rollouts; weights, state, pass rates and successes are those of before.
        GradingFailed: more than 1 % of the responses killed their grading process.
        NoAnswers: no response of the first step has an answer.
        NonFiniteRun: `trainer.max_nonfinite_steps` updates in a row were not finite.
    """
    source: GroupSource = context.source
    learner, clock, step = context.learner, context.source.clock, state.step + 1
    clock.restart()
    memory, layers = PeakMemory(context.sampling.engine), LayerTimes(learner.policy.layers, learner.world)
    learner.assert_sharded()
    groups = source.next(step, context.temperature)
    batch = curate(groups, context.config, context.successes, step, state.version)
    _say_what_is_missing(context, batch, step)
    memory.end("rollout")
    with context.profiler.traced(step):
        with clock.phase("update"), layers.watched(), advised(learner.policy.model, context.config, learner.world):
            batch = learner.with_kl(batch)
            result = learner.update(batch.samples, step)
        memory.end("update")
        if any(one.split for one in result.updates):
            context.console.note(f"step {step}: {SPLIT}")
        version = state.version + result.applied
        with clock.phase("sync"):
            gap = source.publish(learner.weights(), version)
        memory.end("sync")
    context.pass_rates.add_groups(batch.drawn)
    context.statistics.add_groups(batch.drawn, step)
    context.successes.add(batch.drawn)
    context.results.add(batch.drawn)
    diversity = diversity_of(batch.drawn, context.sampling.world)
    if moved := context.tracker.add(batch.drawn, diversity):
        context.console.note(f"step {step}: {moved}")
    if context.plateau.reached(batch.informative / len(batch.drawn)):
        context.statistics.forget(step)
        context.console.note(f"step {step}: the share of informative groups rises no more: recent pass rates are measured anew")
    streak = _streak(context.config, state.nonfinite_streak, result.updates)
    following = TrainState(step=step, version=version, sampler=source.state(), nonfinite_streak=streak)
    record = step_record(context, following, batch, result, gap, memory)
    return following, record | diversity_facts(context, diversity) | machine_facts(context, batch.samples, layers), batch


def _say_what_is_missing(context: TrainContext, batch: TrainingBatch, step: int) -> None:
    if batch.scarce or not batch.trained:
        outcome = "trained all the same" if batch.trained else "no update, weights stay"
        context.console.note(scarcity(batch.informative, len(batch.drawn), context.config, step, outcome))


def _streak(config: RunConfig, streak: int, updates: Sequence[UpdateResult]) -> int:
    """Updates in a row that were not finite, those of earlier steps included."""
    for update in updates:
        streak = 0 if update.applied else streak + 1
        if streak >= config.trainer.max_nonfinite_steps:
            raise NonFiniteRun(
                f"{streak} updates in a row had a non-finite loss ({update.loss}) or gradient norm ({update.grad_norm}); none was applied. "
                "Lower optimizer.lr and resume with --change, or look at the last "
                f"rollouts{_HALF if config.model.dtype == 'float16' else ''}"
            )
    return streak
