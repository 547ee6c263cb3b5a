"""The program of a rank that only samples: it draws what the trainers ask for, all the time, and takes new weights in between."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from polaris.distributed import watch
from polaris.distributed.mesh import World
from polaris.rollout.isolation import any_kernel, preserved_randomness
from polaris.rollout.types import InFlight
from polaris.sampling.context import SamplingContext
from polaris.sampling.grading import Grading
from polaris.sampling.line import room_of
from polaris.sampling.mailbox import (
    Answer,
    Begin,
    Close,
    Command,
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
    in_order,
    key_of,
)
from polaris.sampling.queue import NOTHING, Claim, Queue
from polaris.stop import StopRequest
from polaris.sync.bridge import Bridge
from polaris.types import Rollout, ScoredRollout

_IDLE_S = 0.003
"""Sleep of an engine without work between two looks for commands."""


@dataclass(slots=True)
class _Job:
    """What this engine has of a job."""

    order: Open
    queue: Queue
    grading: Grading


@dataclass(slots=True)
class _Drawn:
    """A probe, and what there is of it."""

    order: Probe
    rollouts: list[Rollout] = field(default_factory=list)


class EngineRank:
    """One engine at work. The world is that of its ranks, which make the same calls: the first of them, which `leads`, claims, answers and
    grades. Trainers are met in the store and on the bridge."""

    def __init__(self, engine: InFlight, world: World, stop: StopRequest, most: int, timeout: timedelta) -> None:
        self._engine, self._world, self._stop, self._most, self._timeout = engine, world, stop, most, timeout
        self._commands, self._answers = commands(world.shared), answers(world.shared, world.engines)[world.engine]
        self._jobs: dict[int, _Job] = {}
        self._owner: dict[tuple[str, int, int], _Job | _Drawn] = {}
        self._bridge: tuple[int, Bridge] | None = None
        self._context: SamplingContext | None = None
        self._held = self._told = False
        self._busy, self._since = 0.0, time.monotonic()

    def run(self, context: SamplingContext | None = None) -> Begin | Close:
        """Work until a command that is for the caller: `Begin`, after which `context` has a grader, or `Close`."""
        self._context = context
        with preserved_randomness(), any_kernel():
            while True:
                signal, count, number, *claim = self._agreed()
                self._tell(signal)
                if claim[2]:
                    self._submit(self._jobs[number], (claim[0], claim[1], claim[2]))
                for command in self._commands.receive(count):
                    if isinstance(command, Begin | Close):
                        return command
                    self._obey(command)
                self._draw()

    @property
    def _leads(self) -> bool:
        return self._world.rank == 0

    def _agreed(self) -> list[int]:
        """A signal, the commands to read, and a claim of a job: its number, lane, start and count; the same on all ranks of the engine."""
        found = [self._stop.number, *((self._commands.come(), *self._claim()) if self._leads else (0,) * 5)]
        if self._world.size == 1:
            return found
        votes = torch.tensor(found, dtype=torch.int64)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return votes.tolist()

    def drop(self) -> None:
        """Grade nothing more of what was not finished."""
        for job in self._jobs.values():
            job.grading.__exit__(None, None, None)

    def end(self) -> None:
        """Say that the engine is closed."""
        self._answer(Ended())

    def _answer(self, answer: Answer) -> None:
        if self._leads:
            self._answers.send(answer)

    def _obey(self, command: Command) -> None:
        match command:
            case Open():
                self._jobs[command.number] = self._open(command)
            case Done():
                self._jobs.pop(command.number).grading.__exit__(None, None, None)
            case Weights():
                self._take(command)
            case Probe():
                self._held = False
                drawn = _Drawn(command)
                self._owner |= {key_of(request): drawn for request in command.requests}
                self._engine.submit_first(command.requests, command.sampling)

    def _open(self, order: Open) -> _Job:
        assert self._context is not None, "a job came before its grader"
        queue = queue_of(order, self._world)
        prompts = {prompt.id: prompt for prompt in order.prompts}

        def graded(scored: ScoredRollout) -> None:
            self._answer(Graded(job=order.number, scored=scored))

        return _Job(order, queue, Grading(self._context, prompts, order.sampling.max_tokens, graded))

    def _take(self, command: Weights) -> None:
        watch.mark(f"weights of version {command.version}")
        if self._bridge is None or self._bridge[0] != command.generation:
            self._bridge = command.generation, Bridge(self._world, command.generation, self._timeout)
        self._engine.exchange_weights(self._bridge[1].receive(), command.version)
        seconds = time.monotonic() - self._since
        self._answer(Served(version=command.version, busy=self._busy, seconds=seconds))
        self._busy, self._since, self._held = 0.0, time.monotonic(), True

    def _tell(self, signal: int) -> None:
        if signal and not self._told:
            self._told = True
            self._answer(Signalled(number=signal))

    def _claim(self) -> tuple[int, int, int, int]:
        """Requests to take: of urgent jobs, then of earlier ones."""
        room = 0 if self._held else room_of(self._engine, self._most, self._world.engines)
        for job in sorted(self._jobs.values(), key=lambda job: not job.order.urgent) if room > 0 else ():
            if (claim := job.queue.claim(self._world.engine, room, self._engine.running)) != NOTHING and claim[2]:
                return job.order.number, *claim
        return 0, *NOTHING

    def _submit(self, job: _Job, claim: Claim) -> None:
        requests = job.queue.requests(claim)
        self._owner |= {key_of(request): job for request in requests}
        self._engine.submit(requests, job.order.sampling)

    def _draw(self) -> None:
        if self._held or not self._engine.running:
            time.sleep(_IDLE_S)
            watch.mark("waits for requests")
            return
        start = time.monotonic()
        for rollout in self._engine.step():
            self._ended(rollout)
        self._busy += time.monotonic() - start
        watch.mark("rollouts")
        for job in self._jobs.values():
            job.grading.check()

    def _ended(self, rollout: Rollout) -> None:
        owner = self._owner.pop(key_of(rollout))
        if isinstance(owner, _Job):
            if self._leads:
                owner.grading.add(rollout)
            return
        owner.rollouts.append(rollout)
        if len(owner.rollouts) == len(owner.order.requests):
            self._answer(Probed(number=owner.order.number, rollouts=in_order(owner.order.requests, owner.rollouts)))


def queue_of(order: Open, world: World) -> Queue:
    """The job's requests, dealt out to the engines."""
    return Queue(order.requests, world.engines, world.shared, f"job/{order.number}")
