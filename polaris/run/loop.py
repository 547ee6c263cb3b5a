"""The loop of a stage: evaluate, step, record, save; until its last step or a request to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState, save
from polaris.observe.console import Console
from polaris.observe.metrics import MetricsFile, read_records
from polaris.observe.samples import RolloutRecorder, RolloutSample
from polaris.observe.trackers import Tracker
from polaris.rollout.types import GenerationInterrupted
from polaris.run.alarms import Alarms
from polaris.run.context import TrainContext
from polaris.run.held_out import evaluate
from polaris.run.step import train_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Where records go; files and trackers on rank 0 only."""

    active: bool
    console: Console
    alarms: Alarms
    metrics: MetricsFile
    rollouts: RolloutRecorder
    trackers: list[Tracker]

    def write(self, record: Mapping[str, Any], samples: list[RolloutSample]) -> None:
        """Write the record of a step or an evaluation, and the rollouts to keep."""
        if self.active:
            self.rollouts.write(record["step"], samples)
            self.metrics.append(record)
            for tracker in self.trackers:
                tracker.log(record)
        self.console.step(record)
        self.alarms.look(record)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


def train_to(last: int, context: TrainContext, folder: RunFolder, state: TrainState, recorder: Recorder) -> TrainState:
    """Train to step `last`, or until a stop is requested. The returned state is on disk in both cases."""
    config, world, stop = context.config, context.sampling.world, context.sampling.stop
    saved = state.step or None
    # One rank reads, since it also truncates and appends: ranks that disagree about an evaluation wait for each other for ever.
    records = read_records(folder.metrics) if world.is_main else []
    evaluated = set(world.gather([record["step"] for record in records if "eval/accuracy" in record]))
    try:
        while not world.any(stop.requested()):
            if context.held_out and state.step not in evaluated and _due(state.step, config.eval.every, last):
                recorder.write(evaluate(context, state.step), [])
                evaluated.add(state.step)
            if state.step >= last:
                break
            state, record, samples = train_step(context, state)
            recorder.write(record, samples)
            if _due(state.step, config.checkpoint.every, last):
                saved = _save(context, folder, state)
    except GenerationInterrupted:
        context.console.note("stop requested: the unfinished rollouts are abandoned and will be drawn again")
    if saved != state.step:
        _save(context, folder, state)
    return state


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def _save(context: TrainContext, folder: RunFolder, state: TrainState) -> int:
    learner = context.learner
    with context.console.phase("checkpoint", in_step=False):
        save(folder.checkpoints, state, learner.policy, learner.optimizer, learner.world, context.config.checkpoint.keep, context.kept)
    return state.step
