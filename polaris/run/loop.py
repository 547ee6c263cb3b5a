"""The loop of a stage: evaluate, step, record, save; until its last step or a request to stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.saver import Saved, Saver
from polaris.checkpoint.store import TrainState
from polaris.config.schema import RunConfig
from polaris.distributed import watch
from polaris.errors import RunFailed
from polaris.observe.console import Console
from polaris.observe.hook import DONE
from polaris.observe.metrics import MetricsFile, read_records
from polaris.observe.samples import RolloutRecorder, RolloutSample
from polaris.observe.trackers.tracker import Tracker
from polaris.rollout.types import GenerationInterrupted
from polaris.run.alarms import Alarms
from polaris.run.context import TrainContext
from polaris.run.held_out import evaluate
from polaris.run.hooks import Hooks
from polaris.run.prompt_table import write_prompts
from polaris.run.record import rollout_samples
from polaris.run.step import train_step
from polaris.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Where records go; files, hooks and trackers on rank 0 only."""

    active: bool
    console: Console
    alarms: Alarms
    metrics: MetricsFile
    rollouts: RolloutRecorder
    hooks: Hooks
    trackers: list[Tracker]

    def start(self, config: RunConfig, folder: Path, next_step: int) -> None:
        """Before the first record, which will be that of `next_step` or of an evaluation before it."""
        for tracker in self.trackers:
            tracker.on_start(config, folder, next_step)
        self.hooks.on_start(config, folder, next_step)

    def step(self, record: Mapping[str, Any], groups: Sequence[Group], samples: list[RolloutSample]) -> None:
        """Write the record of a step whose groups were drawn, and the rollouts to keep."""
        record = {**record, **self.hooks.on_step(record, groups)}
        if self.active:
            self.rollouts.write(record["step"], samples)
        self._write(record)
        for tracker in self.trackers:
            tracker.on_step(record, groups)

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Write the record of an evaluation."""
        record = {**record, **self.hooks.on_evaluate(record)}
        self._write(record)
        for tracker in self.trackers:
            tracker.on_evaluate(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.active:
            self.metrics.append(record)
        self.console.step(record)
        self.alarms.look(record)

    @contextmanager
    def heard_failure(self) -> Iterator[None]:
        """Hooks and trackers hear of a failure inside the block as the end of the run."""
        try:
            yield
        except BaseException as error:
            try:
                self.close(f"{type(error).__name__}: {error}")
            except RunFailed as second:  # the first failure is the cause
                self.console.warning(str(second))
            raise

    def close(self, why: str = DONE) -> None:
        """The loop has ended; see `Hook.on_stop`."""
        for tracker in self.trackers:
            tracker.on_stop(why)
        self.hooks.on_stop(why)


def train_to(last: int, context: TrainContext, folder: RunFolder, state: TrainState, recorder: Recorder) -> TrainState:
    """Train to step `last`, or until a stop is requested. The returned state is on disk in both cases."""
    config, world, stop = context.config, context.sampling.world, context.sampling.stop
    saved = state.step or None
    # One rank reads, since it also truncates and appends: ranks that disagree about an evaluation wait for each other for ever.
    records = read_records(folder.metrics) if world.is_main else []
    evaluated = set(world.gather([record["step"] for record in records if "eval/accuracy" in record]))
    with _open_saver(context, folder, recorder) as saver:
        try:
            while not world.any(stop.requested()):
                saver.look()
                if context.held_out and state.step not in evaluated and _due(state.step, config.eval.every, last):
                    recorder.evaluation(evaluate(context, state.step))
                    evaluated.add(state.step)
                if state.step >= last:
                    break
                state, record, batch = train_step(context, state)
                kept = config.observe.samples_per_step if world.is_main else 0  # rank 0 has the texts
                seconds = {"seconds/checkpoint": waited} if (waited := saver.waited_s()) else {}
                recorder.step(record | seconds, batch.drawn, rollout_samples(batch, context.sampling.tokenizer, state.step, kept))
                if _due(state.step, config.checkpoint.every, last):
                    saved = _save(context, folder, state, saver)
        except GenerationInterrupted:
            context.console.note("stop requested: the unfinished rollouts are abandoned and will be drawn again")
        if saved != state.step:
            _save(context, folder, state, saver)
        with context.console.phase("checkpoint", in_step=False):
            saver.finish()
    return state


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def _open_saver(context: TrainContext, folder: RunFolder, recorder: Recorder) -> Saver:
    """What it has saved the console says and hooks hear."""
    config = context.config

    def tell(saved: Saved) -> None:
        context.console.note(str(saved))
        recorder.hooks.on_checkpoint(saved.step, saved.folder)

    return Saver(folder.checkpoints, config.checkpoint, config.distributed, context.learner.world, tell, context.console.note)


def _save(context: TrainContext, folder: RunFolder, state: TrainState, saver: Saver) -> int:
    learner = context.learner
    with watch.phase("checkpoint"), context.console.phase("checkpoint", in_step=False):
        saver.save(state, learner.policy, learner.optimizer, context.kept)
    if learner.world.is_main:
        write_prompts(context, folder, state.step)
    return state.step
