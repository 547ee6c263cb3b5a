"""Engines on ranks of their own, as the ranks that train see them: jobs to draw, weights, and the probe of each engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from polaris.distributed.mesh import World
from polaris.rollout.types import Engine, Progress, RolloutRequest, Sampling
from polaris.sampling.engine_rank import queue_of
from polaris.sampling.mailbox import (
    Answer,
    Begin,
    Close,
    Done,
    Ended,
    Graded,
    Open,
    Probe,
    Probed,
    Served,
    Signalled,
    Weights,
    answers,
    commands,
)
from polaris.stop import StopRequest
from polaris.sync.bridge import Bridge
from polaris.types import Prompt, Rollout, ScoredRollout

if TYPE_CHECKING:
    import torch

_POLL_S = 0.003
"""Between two looks of the first trainer for answers."""
_AGREE_S = 0.05
"""Between two questions of all trainers whether one was asked to stop."""
_FAREWELL_S = 30.0
"""Longest wait for the engines' end."""


@dataclass(slots=True)
class Job:
    """Requests that were handed out, and what has arrived of them; on the first trainer only."""

    order: Open
    arrived: list[ScoredRollout] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.arrived) == len(self.order.requests)


class RemoteEngines(Engine):
    """An `Engine` that stands for all engines of the job. Every rank that trains makes the same calls; the first one writes and reads."""

    def __init__(self, world: World, stop: StopRequest, timeout: timedelta) -> None:
        self._world, self._stop, self._timeout = world, stop, timeout
        self._commands, self._answers = commands(world.shared), answers(world.shared, world.engines)
        self._number = self._version = 0
        self._bridge: Bridge | None = None
        self._jobs: dict[int, Job] = {}
        self._served: list[Served] = []
        self._probed: dict[int, Probed] = {}
        self._ended = 0
        self._unread: list[str] = []
        """Keys of the store that may go once the engines have read what was sent."""
        self.busy = 0.0
        """Share of the time between the last two versions in which engines drew, in the mean."""

    @property
    def version(self) -> int:
        return self._version

    def begin(self, config: str, require_thinking: bool) -> None:
        """Let the engines make their graders; `config` is compared with theirs."""
        self._say(Begin(config=config, require_thinking=require_thinking))

    def post(self, prompts: Sequence[Prompt], requests: Sequence[RolloutRequest], sampling: Sampling, *, urgent: bool = False) -> Job:
        """Hand requests out. Those of `urgent` jobs are taken first, then those of earlier ones."""
        job = Job(Open(number=self._next(), prompts=tuple(prompts), requests=tuple(requests), sampling=sampling, urgent=urgent))
        self._jobs[job.order.number] = job
        self._say(job.order)
        return job

    def wait(
        self, job: Job, on_arrived: Callable[[ScoredRollout], None] = lambda scored: None, on_wait: Callable[[], None] = lambda: None
    ) -> bool:
        """Return True when all of the job has arrived, False where a stop was requested before; the same on every rank.

        The first trainer calls `on_arrived` for each response of the job, also for those that came earlier, and `on_wait` now and then.
        """
        heard = 0

        def arrived() -> bool:
            nonlocal heard
            for scored in job.arrived[heard:]:
                on_arrived(scored)
            heard = len(job.arrived)
            return job.complete

        complete = self._wait(arrived, on_wait)
        if complete:
            del self._jobs[job.order.number]
            self._say(Done(number=job.order.number))
            self._unread += queue_of(job.order, self._world).keys
        return complete

    def draw_on_each(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Rollout]]:
        """See `Several.draw_on_each`. A stop does not cut it short."""
        probe = Probe(number=self._next(), requests=tuple(requests), sampling=sampling)
        self._say(probe)
        while not self._wait(lambda: len(self._probed) == self._world.engines):
            pass
        drawn = [list(self._probed.pop(engine).rollouts) for engine in sorted(self._probed)]
        self._forget()
        return self._world.gather(drawn)

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_finished: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """Of the first engine, as all draw them: for few requests. None of the functions is called."""
        return self.draw_on_each(requests, sampling)[0]

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        raise NotImplementedError

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Send weights to all engines, in the middle of what they draw; then they wait for `draw_on_each`, which is the proof."""
        if self._world.is_main:
            self._say(Weights(version=version, generation=0))
            if self._bridge is None:
                self._bridge = Bridge(self._world, 0, self._timeout)
            self._bridge.send(weights)
            while len(self._served) < self._world.engines:
                self._read()
                time.sleep(_POLL_S)
            self.busy = sum(one.busy / one.seconds for one in self._served) / len(self._served)
            assert {one.version for one in self._served} == {version}
            self._served.clear()
            self._forget()
        else:
            for _ in weights:
                pass
        self._version = version

    def sleep(self) -> None:
        """Nothing: their devices are their own."""

    def wake(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """End the engines, and wait a while until they are closed."""
        if not self._world.is_main or self._ended:
            return
        self._say(Close(signal=self._stop.number))
        deadline = time.monotonic() + _FAREWELL_S
        while self._ended < self._world.engines and time.monotonic() < deadline:
            self._read()
            time.sleep(_POLL_S)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _say(self, command: Any) -> None:
        if self._world.is_main:
            self._commands.send(command)

    def _forget(self) -> None:
        if self._world.is_main:
            self._commands.forget(self._unread)
        self._unread.clear()

    def _wait(self, arrived: Callable[[], bool], on_wait: Callable[[], None] = lambda: None) -> bool:
        """Whether it has `arrived`, rather than a stop was requested; the same on every rank."""
        while True:
            came = self._watch(arrived) if self._world.is_main else False
            came, stop = (any(flags) for flags in zip(*self._world.gather([(came, self._stop.requested())]), strict=True))
            if came or stop:
                return came
            on_wait()

    def _watch(self, arrived: Callable[[], bool]) -> bool:
        """Look for answers until it has `arrived`, or trainers are to agree again."""
        until = time.monotonic() + _AGREE_S
        while True:
            self._read()
            if arrived():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)

    def _read(self) -> None:
        for engine, channel in enumerate(self._answers):
            for answer in channel.receive(channel.come(), last=True):
                self._hear(engine, answer)

    def _hear(self, engine: int, answer: Answer) -> None:
        match answer:
            case Graded():
                self._jobs[answer.job].arrived.append(answer.scored)
            case Served():
                self._served.append(answer)
            case Probed():
                self._probed[engine] = answer
            case Signalled():
                self._stop.number = self._stop.number or answer.number
            case Ended():
                self._ended += 1
