"""Engines on ranks of their own, as the ranks that train see them: jobs to draw, weights, and the probe of each engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polaris.config.schema import RunConfig
from polaris.distributed import watch
from polaris.distributed.mesh import World
from polaris.distributed.supervise import say_over
from polaris.errors import RunFailed
from polaris.rollout.types import Engine, Progress, RolloutRequest, Sampling
from polaris.sampling.delivery import Delivery, bridge_patience
from polaris.sampling.fleet import Fleet
from polaris.sampling.jobs import Job, Jobs
from polaris.sampling.mailbox import Answer, Arrived, Begin, Close, Graded, Probe, Probed, Running, Signalled, Welcome, commands, welcome
from polaris.stop import StopRequest
from polaris.types import Rollout, ScoredRollout

if TYPE_CHECKING:
    import torch

_POLL_S = 0.003
"""Between two looks of the first trainer for answers."""
_AGREE_S = 0.05
"""Between two questions of all trainers whether one was asked to stop."""
_FAREWELL_S = 30.0
"""Longest wait for the engines' end."""


class RemoteEngines(Engine):
    """An `Engine` that stands for all engines of the job. Every rank that trains makes the same calls; the first one writes and reads.

    An engine that is lost is started again by its ranks (`polaris.distributed.supervise`). When it has come back, all trainers call
    `renew` where they wait for engines anyway: it publishes the present weights, with proof. `note` hears of both.
    """

    def __init__(self, world: World, config: RunConfig, stop: StopRequest, note: Callable[[str], None]) -> None:
        self._world, self._stop, self._note = world, stop, note
        self.renew: Callable[[], Any] | None = None
        self._version = self._probes = 0
        self._renewing: list[int] | None = None
        """The engines that are given weights anew, while they are."""
        self._drawn_by: list[int] = []
        self._probed: dict[int, Probed] = {}
        self._news = False
        """Whether an engine has said something since the trainers last agreed."""
        self._begin: tuple[Begin, ...] = ()
        self._closed = False
        self._commands = commands(world.shared)
        self.jobs = Jobs(self._commands if world.is_main else None, world.shared, world.engines)
        self._fleet = Fleet(world.shared, world.engines, self._beats, config.rollout, 60 * config.distributed.update_timeout_minutes)
        self._delivery = Delivery(world, self._fleet, self._commands, self._look, bridge_patience(config.rollout))

    @property
    def version(self) -> int:
        return self._version

    @property
    def busy(self) -> float:
        """Share of the time between the last two versions in which engines drew, in the mean."""
        return self._delivery.busy

    @property
    def lost(self) -> int:
        """Engines that were lost so far; on the first trainer."""
        return len(self._fleet.lost)

    @property
    def workers(self) -> int:
        """GPUs that the engines have of their own, those of servers outside the job included; on the first trainer."""
        return sum(self._fleet.bridge_ranks(engine) for engine in range(self._world.engines))

    def meet(self) -> None:
        """Wait until all engines are built. Returns early where a stop was requested."""
        watch.mark(f"{watch.WAITS}engines to be built")
        self._wait(lambda: not self._fleet.absent)
        for engine in self._fleet.arrived:
            self._fleet.serves(engine)

    def begin(self, config: str, require_thinking: bool) -> None:
        """Let the engines make their graders; `config` is compared with theirs."""
        self._begin = (Begin(config=config, require_thinking=require_thinking),)
        if self._world.is_main:
            self._commands.send(self._begin[0])

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

        complete = self._wait(arrived, on_wait, renews=True)
        if complete:
            self.jobs.close(job)
        return complete

    def draw_on_each(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Rollout]]:
        """See `Several.draw_on_each`; of the engines that serve the present weights. A stop does not cut it short.

        The list is empty where all engines were lost while weights are renewed, or where a stop was requested before one has come back:
        what was trained can be saved without any.
        """
        while True:
            drawn = self._drawn(requests, sampling)
            if drawn or self._renewing is not None:
                return drawn
            watch.mark(f"{watch.WAITS}an engine that is started again")
            if not self._wait(lambda: bool(self._fleet.waiting)):
                return []
            self._renew()

    def dismiss(self, found: Mapping[int, str], error: RunFailed) -> None:
        """See `Several.dismiss`. One that was started again must be right at once, or the `error` is raised."""
        if self._world.any(self._world.is_main and any(self._fleet.is_new(self._drawn_by[place]) for place in found)):
            raise error
        for place, reason in found.items() if self._world.is_main else ():
            self._fleet.end(self._drawn_by[place], reason)
            self._see_losses()  # before anything is heard that it drew with them

    def approve(self) -> None:
        """What `draw_on_each` drew was as the present weights draw."""
        self._fleet.was_proven(self._drawn_by)
        self.jobs.believe(self._drawn_by)

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
        """Send weights to the engines, in the middle of what they draw; then they wait for `draw_on_each`, which is the proof. Those that
        are lost on the way, or whose bridge breaks, are given them anew when they are there."""
        self._version = version
        rest = iter(weights)
        if self._world.is_main:
            self._look()  # what has come until now was drawn by weights that are proven
            engines = self._fleet.arrived if self._renewing is None else self._renewing
            self.jobs.doubt(engines)
            self._delivery.send(rest, version, engines)
            self.jobs.forget(self._fleet.all_read)
        for _ in rest:  # gathering is collective
            pass

    def sleep(self) -> None:
        """Nothing: their devices are their own."""

    def wake(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """End the engines, and wait a while until they are closed."""
        self.renew = None
        if not self._world.is_main or self._closed:
            return
        self._closed = True
        self._commands.send(Close(signal=self._stop.number))
        say_over(self._world.shared)
        deadline = time.monotonic() + _FAREWELL_S
        while self._fleet.arrived and time.monotonic() < deadline:
            self._look()
            time.sleep(_POLL_S)

    def _drawn(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Rollout]]:
        """What the engines that serve the present weights draw, but those that are lost meanwhile."""
        self._probes += 1
        asked = [engine for engine in self._fleet.present if self._renewing is None or engine in self._renewing]
        if self._world.is_main:
            self._probed.clear()
            self._commands.send(Probe(number=self._probes, requests=tuple(requests), sampling=sampling, engines=tuple(asked)))

        def left() -> list[int]:
            return [engine for engine in asked if engine in self._fleet.present]

        self._outlast(lambda: all(engine in self._probed for engine in left()), "the responses to the probe")
        pairs = [(engine, list(self._probed[engine].rollouts)) for engine in left()] if self._world.is_main else []
        pairs = self._world.gather(pairs)
        self._drawn_by = [engine for engine, _ in pairs]
        return [rollouts for _, rollouts in pairs]

    def _renew(self) -> None:
        """Publish the present weights to engines that have come back."""
        assert self.renew is not None
        self._renewing = self._world.gather(self._fleet.waiting if self._world.is_main else [])
        try:
            self.renew()
            if back := [engine for engine in self._renewing if engine in self._fleet.present]:
                self._note(f"engine {', '.join(map(str, back))} is back, with weights of version {self._version}")
        finally:
            self._renewing = None

    def _outlast(self, arrived: Callable[[], bool], what: str) -> None:
        """Wait, also where a stop is requested."""
        watch.mark(f"{watch.WAITS}{what}")
        while not self._wait(arrived):
            pass

    def _wait(self, arrived: Callable[[], bool], on_wait: Callable[[], None] = lambda: None, *, renews: bool = False) -> bool:
        """Whether it has `arrived`, rather than a stop was requested; the same on every rank. With `renews`, engines that come back
        meanwhile are given weights."""
        while True:
            came = self._watch(arrived) if self._world.is_main else False
            back = renews and self._world.is_main and bool(self._fleet.waiting)
            said = self._world.gather([(came, self._stop.requested(), back, self._news)])
            came, stop, back, news = (any(flags) for flags in zip(*said, strict=True))
            self._news = False
            if news and not self._world.is_main:
                watch.mark(f"{watch.WAITS}the first trainer, which hears the engines")
            if came or stop:
                return came
            if back:
                self._renew()
            on_wait()

    def _watch(self, arrived: Callable[[], bool]) -> bool:
        """Look for answers until it has `arrived`, or trainers are to agree again."""
        until = time.monotonic() + _AGREE_S
        while True:
            self._look()
            if arrived():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)

    def _look(self) -> None:
        """Hear what engines say, and see which are lost."""
        for engine, answer in self._fleet.answers():
            self._hear(engine, answer)
        self._see_losses()

    def _see_losses(self) -> None:
        """See which engines are lost; what they have said since is drawn anew."""
        for engine, reason in self._fleet.fallen():
            if self.renew is None and not self._closed:
                raise RunFailed(f"engine {engine} {reason}, before the first step. Mend the cause, and start again")
            again = "It is started again" if self._world.ranks_of(engine) else "Its server is asked again; start that where it has ended"
            self._note(f"engine {engine} {reason}. {again}. What it drew is drawn anew ({self.lost} lost so far)")
            self.jobs.lose(engine)
            self.jobs.recall(self._fleet.arrived)

    def _hear(self, engine: int, answer: Answer) -> None:
        self._news = True
        match answer:
            case Arrived():
                if self._fleet.life(engine):
                    self.jobs.recall([other for other in self._fleet.arrived if other != engine])
                self._fleet.has_read(engine, self._commands.sent)
                said = Welcome(commands=(*self._begin, *self.jobs.orders()), place=self._commands.sent)
                welcome(self._world.shared, engine, self._fleet.life(engine), said)
            case Graded():
                self.jobs.graded(engine, answer)
            case Running():
                self.jobs.running(engine, answer)
            case Probed():
                if answer.number == self._probes:
                    self._probed[engine] = answer
            case Signalled():
                self._stop.number = self._stop.number or answer.number
            case _:
                self._delivery.hear(engine, answer)

    def _beats(self, engine: int) -> list[Any]:
        ranks = self._world.ranks_of(engine)
        # What drives a server is a process of this machine, and ends when the server does not answer.
        return watch.heartbeats(self._world.job.store, ranks) if ranks else [time.monotonic()]
