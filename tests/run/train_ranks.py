"""Trains the embedded model to step 4. Among several ranks the last one is told to stop, once while it samples and once after an update.

`torchrun tests/run/train_ranks.py ROOT PROBLEMS`, or `train` within one process.
"""

import dataclasses
import signal
import sys
from pathlib import Path

import numpy as np

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.load import load_config
from polaris.run.checks import check
from polaris.run.loop import train_to
from polaris.run.resume import resume
from polaris.run.session import run_session
from polaris.run.setup import open_recorder, open_training

STEPS = 4
SHIFT = 2e-5
"""Nats by which the engine of the last rank is off on the probe's responses: the sync gap of every step is that rank's."""
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"


def check_run(root, problems):
    return check(
        load_config(
            CONFIG,
            [
                f"--data.path={problems}", f"--eval.path={problems}", f"--root={root}", "--name=run", "--observe.tensorboard=false",
                "--rollout.engine=transformers", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=48", "--eval.every=2",
                "--eval.samples_per_prompt=1", f"--trainer.steps={STEPS}", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1",
                "--checkpoint.every=100", "--algorithm.kl=k1", "--algorithm.kl_coefficient=0",
                "--sync.gap_factor=1000", "--distributed.wait_timeout_hours=0.02",
                "--curriculum.target=[0.7, 0.4]", "--optimizer.lr=3e-5",
                "--reward.process.most=0.5", r"--reward.process.marker=[=:](-?\d+)",
            ],
        )
    )  # fmt: skip


class Engine:
    """The rank's engine, which asks its own process to stop where it is told to."""

    def __init__(self, engine, probe, shift):
        self._engine, self._probe, self._shift = engine, probe, shift
        self.draws, self.stop_in_draw, self.stop_in_sync = 0, -1, -1

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def generate(self, requests, sampling, **hooks):
        if requests is self._probe.requests:
            if self.version == self.stop_in_sync:
                self.stop_in_sync = -1
                signal.raise_signal(signal.SIGTERM)
            rollouts = self._engine.generate(requests, sampling, **hooks)
            return [dataclasses.replace(rollout, logprobs=rollout.logprobs + np.float32(self._shift)) for rollout in rollouts]
        self.draws += 1
        if self.draws == self.stop_in_draw:
            signal.raise_signal(signal.SIGTERM)
        return self._engine.generate(requests, sampling, **hooks)


def with_engine(context, engine):
    """The same with another engine."""
    source = dataclasses.replace(context.source, context=dataclasses.replace(context.sampling, engine=engine))
    return dataclasses.replace(context, source=source)


def train(checked, world, stop):
    folder = RunFolder(Path(checked.config.root) / checked.config.name)
    last = world.rank == world.size - 1
    with open_training(checked, world, stop) as opened:
        engine = Engine(opened.sampling.engine, opened.source.proof.probe, SHIFT if last else 0.0)
        if world.size > 1 and last:
            engine.stop_in_draw, engine.stop_in_sync = 3, 2  # the draws are those of the first evaluation, of step 1, of step 2
        context, stops = with_engine(opened, engine), []
        while not stops or stops[-1] < STEPS:
            if stop.requested():  # as in a new process
                stop.number = 0
                stop.install()
            state = resume(context, folder)
            if state.step:
                context.source.sampler.restore(state.sampler)
            recorder = open_recorder(context, folder, state.step)
            stops.append(train_to(STEPS, context, folder, state, recorder).step)
            recorder.close()
    stop.number = 0
    return stops


def main(root, problems):
    def work(checked, world, stop):
        stops = train(checked, world, stop)
        assert world.gather([tuple(stops)]) == [(1, 2, STEPS)] * world.size, stops

    return run_session(lambda: check_run(root, problems), work, lambda checked: checked.config.distributed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
