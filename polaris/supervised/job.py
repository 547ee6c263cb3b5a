"""One fine-tuning, from the resume to the report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from polaris.checkpoint.export import export
from polaris.checkpoint.run_folder import RunFolder, record_config
from polaris.checkpoint.saver import Saved, Saver
from polaris.checkpoint.store import TrainState, load
from polaris.distributed import watch
from polaris.distributed.mesh import World
from polaris.errors import Refused, RunFailed
from polaris.learn.optimizer import build_optimizer
from polaris.model.load import describe_parameters
from polaris.observe.console import Console
from polaris.observe.hook import DONE, STOPPED
from polaris.observe.metrics import MetricsFile, read_records
from polaris.observe.report import summary, write_report
from polaris.observe.trackers.table import make_trackers
from polaris.observe.trackers.tracker import Tracker
from polaris.run.banner import halved, memory
from polaris.run.load_policy import load_policy
from polaris.run.machine import seconds_at_peak
from polaris.run.memory import advised
from polaris.run.profiler import Profiler, open_profiler
from polaris.run.step import SPLIT
from polaris.stop import StopRequest
from polaris.supervised.checks import CheckedSft, check_ranks
from polaris.supervised.examples import batch
from polaris.supervised.tuner import Tuner


def tune_and_export(checked: CheckedSft, folder: RunFolder, world: World, stop: StopRequest) -> None:
    """Open or resume the run, train to its last step or until a stop, export, and write the report."""
    check_ranks(checked, folder, world)
    with stop.at_once():
        tuner, state = _resume(open_tuner(checked, world), folder, len(checked.data.examples))
    console = Console(world.is_main, tuner.steps)
    console.resumed(state.step)
    console.banner(_banner(checked, folder, tuner, state))
    trackers = make_trackers(checked.config) if world.is_main else []
    profiler = open_profiler(folder.path, checked.config.observe.profile, world.is_main, console.note)
    job = _Job(tuner=tuner, checked=checked, folder=folder, console=console, trackers=trackers, profiler=profiler)
    if world.is_main:
        MetricsFile(folder.metrics).truncate_after(state.step)
        record_config(folder, checked.config, checked.content, checked.origin, state.step)
    with job.trackers_until_the_end(state.step, stop):
        state = job.train(state, stop)
    stopped = state.step < tuner.steps or world.any(stop.requested())
    if world.is_main:
        if not stopped:
            console.note(f"the model: {export(folder.path, None, state.step)}")
        console.finish(summary(folder.path), write_report(folder.path), stopped)


def open_tuner(checked: CheckedSft, world: World) -> Tuner:
    """The sharded model with the weights of its checkpoint, and its optimizer."""
    config = checked.config
    policy, _ = load_policy(checked.model.folder, config, world, longest=config.data.max_tokens)
    optimizer = build_optimizer(policy, config.optimizer)
    return Tuner(policy=policy, optimizer=optimizer, config=config, world=world, steps=checked.steps)


def _resume(tuner: Tuner, folder: RunFolder, examples: int) -> tuple[Tuner, TrainState]:
    """The state of the newest complete checkpoint, restored; else that of step 0. The tuner knows how many steps follow it."""
    checkpoint = folder.newest_checkpoint()
    tuner.world.barrier()
    if checkpoint is None:
        return tuner, TrainState(step=0, version=0, sampler={"seen": 0}, nonfinite_streak=0)
    state = load(checkpoint, tuner.policy, tuner.optimizer, tuner.world)
    tuner = replace(tuner, steps=tuner.config.steps(examples, state.step, state.sampler["seen"]))
    if state.step > tuner.steps:
        raise Refused(f"{folder.path} is at step {state.step}, beyond the {tuner.steps} that are asked for; raise trainer.epochs or steps")
    return tuner, state


def _banner(checked: CheckedSft, folder: RunFolder, tuner: Tuner, state: TrainState) -> dict[str, str]:
    config, world = checked.config, tuner.world
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    facts = plan(checked, tuner.steps) | {
        "model": f"{config.model.path} ({describe_parameters(tuner.policy)}, {config.model.dtype})",
        "device": f"{device}, {world.size} rank{'s' if world.size > 1 else ''}",
        "attention": tuner.policy.attention,
        "run": str(folder.path),
    }
    facts |= memory(config) | halved(world)
    facts |= {"begins with": str(checked.origin)} if checked.origin else {}
    facts |= {"resumed": f"from step {state.step}"} if state.step else {}
    changed = (*folder.changes.altering, *folder.changes.free)
    return facts | ({"changed": f"from step {state.step + 1} on: {'; '.join(changed)}"} if changed else {})


def plan(checked: CheckedSft, steps: int) -> dict[str, str]:
    """What a configuration comes to, in words; `steps` of them in all."""
    config, examples = checked.config, len(checked.data.examples)
    held_out = sum(one.trained for one in checked.held_out)
    return {
        "model": f"{config.model.path} ({config.model.dtype})",
        "examples": str(checked.data),
        "held out": f"{len(checked.held_out):,} examples, {held_out:,} trained tokens"
        if held_out
        else "none (neither eval.path nor fraction)",
        "steps": f"{steps:,} of {config.trainer.examples_per_step} examples; {config.total(examples) / examples:.3g} epochs",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    tuner: Tuner
    checked: CheckedSft
    folder: RunFolder
    console: Console
    trackers: list[Tracker]
    profiler: Profiler

    def train(self, state: TrainState, stop: StopRequest) -> TrainState:
        """Train to the last step, or until a stop is requested; the returned state is on disk in both cases."""
        tuner, world, config = self.tuner, self.tuner.world, self.checked.config
        saved, records = state.step or None, read_records(self.folder.metrics) if world.is_main else []
        evaluated = set(world.gather([record["step"] for record in records if "eval/loss" in record]))
        with self._open_saver() as saver:
            while not world.any(stop.requested()):
                saver.look()
                if self.checked.held_out and state.step not in evaluated and self._due(state.step, config.eval.every):
                    self._record(self._evaluate(state.step))
                    evaluated.add(state.step)
                if state.step >= tuner.steps:
                    break
                state = self._step(state, saver.waited_s())
                if self._due(state.step, config.checkpoint.every):
                    saved = self._save(state, saver)
            if saved != state.step:
                self._save(state, saver)
        return state

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.tuner.steps

    def _step(self, state: TrainState, waited_s: float) -> TrainState:
        """Before it, training has waited for a checkpoint for so many seconds."""
        config, tuner, began = self.checked.config, self.tuner, time.monotonic()
        everything, seen, step = self.checked.data.examples, state.sampler["seen"], state.step + 1
        most = min(config.trainer.examples_per_step, config.total(len(everything)) - seen)
        examples = batch(everything, config.seed, seen, most)
        advice = advised(tuner.policy.model, config, tuner.world)
        with self.profiler.traced(step), watch.phase("update"), self.console.phase("update"), advice:
            result = tuner.update(examples, step)
        if result.split:
            self.console.note(f"step {step}: {SPLIT}")
        streak = 0 if result.applied else state.nonfinite_streak + 1
        if streak >= config.trainer.max_nonfinite_steps:
            raise RunFailed(
                f"{streak} updates in a row had a non-finite loss ({result.loss}) or gradient norm ({result.grad_norm}); none was applied. "
                "Lower optimizer.lr and resume with --change"
            )
        seconds, lengths, trained = time.monotonic() - began, [len(one.tokens) for one in examples], sum(one.trained for one in examples)
        tokens, gpus = sum(lengths), tuner.world.size
        ideal = seconds_at_peak(tuner.policy.model, config.model.dtype, tuner.world.device, lengths, trained)
        self._record(
            {
                "step": step,
                "epoch": (seen + most) / len(everything),
                "sft/loss": result.loss,
                "sft/tokens": tokens,
                "sft/trained_tokens": trained,
                "optimizer/grad_norm": result.grad_norm,
                "optimizer/lr": tuner.lr,
                "optimizer/skipped": int(not result.applied),
                "seconds/step": seconds,
                **({"seconds/checkpoint": waited_s} if waited_s else {}),
                "throughput/train_tokens_per_s": tokens / seconds,
                "throughput/gpus": gpus,
                "throughput/train_tokens_per_gpu_s": tokens / seconds / gpus,
                **({"throughput/mfu_step": ideal / seconds / gpus} if ideal else {}),
            }
        )
        return TrainState(step=step, version=state.version + result.applied, sampler={"seen": seen + most}, nonfinite_streak=streak)

    def _evaluate(self, step: int) -> dict[str, Any]:
        began = time.monotonic()
        with watch.phase("eval"), self.console.phase("eval", in_step=False):
            loss = self.tuner.loss(self.checked.held_out)
        return {"step": step, "eval/loss": loss, "eval/examples": len(self.checked.held_out), "seconds/eval": time.monotonic() - began}

    def _record(self, record: dict[str, Any]) -> None:
        if self.tuner.world.is_main:
            MetricsFile(self.folder.metrics).append(record)
        self.console.step(record)
        for tracker in self.trackers:
            tracker.log(record["step"], {key: value for key, value in record.items() if key != "step"})

    def _open_saver(self) -> Saver:
        def tell(saved: Saved) -> None:
            self.console.note(str(saved))

        config = self.checked.config
        return Saver(self.folder.checkpoints, config.checkpoint, config.distributed, self.tuner.world, tell, self.console.note)

    def _save(self, state: TrainState, saver: Saver) -> int:
        with watch.phase("checkpoint"), self.console.phase("checkpoint", in_step=False):
            saver.save(state, self.tuner.policy, self.tuner.optimizer)
        return state.step

    @contextmanager
    def trackers_until_the_end(self, step: int, stop: StopRequest) -> Iterator[None]:
        """Trackers hear of the start after `step`, and how the block has ended."""
        for tracker in self.trackers:
            tracker.on_start(self.checked.config, self.folder.path, step + 1)
        why = "failed"
        try:
            yield
            why = STOPPED if stop.requested() else DONE
        finally:
            for tracker in self.trackers:
                tracker.on_stop(why)
