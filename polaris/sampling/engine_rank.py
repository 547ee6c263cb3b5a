"""The program of an engine that has ranks of its own: it draws what trainers ask for, all the time, and takes new weights in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import overload

import torch
import torch.distributed as dist

from polaris.config.rollout import RolloutConfig
from polaris.distributed import watch
from polaris.distributed.mesh import World
from polaris.distributed.supervise import Lives, Pulse
from polaris.errors import RunFailed
from polaris.rollout.isolation import any_kernel, preserved_randomness
from polaris.rollout.types import BridgePlace, InFlight, Outside, TransferBroken
from polaris.sampling.context import SamplingContext
from polaris.sampling.delivery import bridge_patience
from polaris.sampling.grading import Grading
from polaris.sampling.jobs import queue_of
from polaris.sampling.line import room_of
from polaris.sampling.mailbox import (
    Answer,
    Arrived,
    Begin,
    Close,
    Command,
    Done,
    Ended,
    Go,
    Graded,
    Key,
    Open,
    Probe,
    Probed,
    Ready,
    Recall,
    Running,
    Served,
    Signalled,
    Weights,
    answers,
    commands,
    in_order,
    key_of,
    welcomed,
)
from polaris.sampling.queue import NOTHING, Claim, Queue
from polaris.stop import StopRequest
from polaris.sync.bridge import Bridge, BridgeBroken, place_of, prefix_of
from polaris.types import Rollout, ScoredRollout

_IDLE_S = 0.003
"""Sleep of an engine without work between two looks for commands."""


@dataclass(slots=True)
class _Job:
    """What this engine has of a job: `taken` are the requests that it has not answered."""

    order: Open
    queue: Queue
    grading: Grading
    taken: set[Key] = field(default_factory=set)


@dataclass(slots=True)
class _Drawn:
    """A probe, and what there is of it."""

    order: Probe
    rollouts: list[Rollout] = field(default_factory=list)


class EngineRank:
    """One engine at work, in one of its lives. The world is that of its ranks, which make the same calls: the first of them, which `leads`,
    claims, answers and grades. Trainers are met in the store and on the bridge."""

    def __init__(self, engine: InFlight, world: World, stop: StopRequest, pulse: Pulse, life: int, config: RolloutConfig) -> None:
        self._engine, self._world, self._stop, self._pulse = engine, world, stop, pulse
        self._most, self._timeout = config.max_concurrent, bridge_patience(config)
        self._life = life
        self._commands, self._answers = commands(world.shared), answers(world.shared, world.engine, life)
        self._before: list[Command] = []
        """Commands that hold since before this life."""
        self._jobs: dict[int, _Job] = {}
        self._owner: dict[Key, _Job | _Drawn] = {}
        self._bridge: tuple[int, Bridge] | None = None
        self._context: SamplingContext | None = None
        self._held = life > 0
        self._told = False
        self._drawn = 0
        self._busy, self._since = 0.0, time.monotonic()

    def arrive(self) -> bool:
        """Say that the engine is built, and hear what holds; False where the trainers need it no more."""
        self._answer(Arrived(ranks=self._engine.workers if isinstance(self._engine, Outside) else self._world.size))
        lives = Lives(self._world.shared, self._world.engine)
        while (said := welcomed(self._world.shared, self._world.engine, self._life)) is None:
            if lives.over:
                return False
            self._rest(f"{watch.WAITS}the first word of the trainers")
        self._before, self._commands = list(said.commands), commands(self._world.shared, said.place)
        return True

    def run(self, context: SamplingContext | None = None) -> Begin | Close:
        """Work until a command that is for the caller: `Begin`, after which `context` has a grader, or `Close`."""
        self._context = context
        with preserved_randomness(), any_kernel():
            while True:
                for command in self._heard():
                    if isinstance(command, Begin | Close):
                        return command
                    self._obey(command)
                self._draw()

    @property
    def _leads(self) -> bool:
        return self._world.rank == 0

    def _heard(self) -> Iterator[Command]:
        """What the trainers say; a claim that the engine's ranks have agreed on is taken in passing."""
        while self._before:
            yield self._before.pop(0)
        signal, count, number, *claim = self._agreed()
        self._tell(signal)
        if claim[2]:
            self._submit(self._jobs[number], (claim[0], claim[1], claim[2]))
        yield from self._commands.receive(count)

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
                self._open(command)
            case Done():
                self._jobs.pop(command.number).grading.__exit__(None, None, None)
            case Recall():
                keys = {number: frozenset(job.taken.copy()) for number, job in self._jobs.items()}
                self._answer(Running(number=command.number, keys=keys))
            case Weights() if self._world.engine in command.ranks:
                self._take(command)
            case Probe() if self._world.engine in command.engines:
                self._held = False
                drawn = _Drawn(command)
                self._owner |= {key_of(request): drawn for request in command.requests}
                self._engine.submit_first(command.requests, command.sampling)

    def _open(self, order: Open) -> None:
        queue = queue_of(order, self._world.engines, self._world.shared)
        if order.number in self._jobs:
            self._jobs[order.number].order, self._jobs[order.number].queue = order, queue
            return
        assert self._context is not None, "a job came before its grader"
        prompts = {prompt.id: prompt for prompt in order.prompts}

        def graded(scored: ScoredRollout) -> None:
            self._answer(Graded(job=order.number, scored=scored))
            job.taken.discard(key_of(scored.rollout))

        job = self._jobs[order.number] = _Job(order, queue, Grading(self._context, prompts, order.sampling.max_tokens, graded))

    def _take(self, order: Weights) -> None:
        order = self._called(order)
        if isinstance(self._engine, Outside):
            order = self._let_take(self._engine, order)
        else:
            self._engine.exchange_weights(self._received(order), order.version)
        seconds = time.monotonic() - self._since
        self._answer(Served(version=order.version, busy=self._busy, seconds=seconds))
        self._busy, self._since, self._held = 0.0, time.monotonic(), True

    def _called(self, order: Weights, begun: int | None = None) -> Weights:
        """Get ready for the weights of an order, or of one that follows before the word comes to cross: that one.

        Raises:
            RunFailed: a part of those of version `begun` has come, and this is another.
        """
        while True:
            if begun not in (None, order.version):
                raise RunFailed(f"only a part of the weights of version {begun} came, and then those of version {order.version}")
            self._answer(Ready(generation=order.generation, read=self._commands.read))
            following = self._next_word(order)
            if isinstance(following, Go):
                return order
            order = following

    def _let_take(self, engine: Outside, order: Weights) -> Weights:
        """Weights go to an engine outside of this process: the order that it has taken. Where the bridge breaks, all come over the next."""
        while True:
            self._moved(f"weights of version {order.version}")
            try:
                engine.take_weights(self._place_on(order), order.version)
                return order
            except TransferBroken:
                order = self._called(self._next_word(None))

    def _place_on(self, order: Weights) -> BridgePlace:
        store, rank = self._world.place, order.ranks[self._world.engine]
        assert store is not None, "engines outside of their process are servers"
        prefix, timeout_s = f"{store.prefix}/{prefix_of(order.generation)}", self._timeout.total_seconds()
        return BridgePlace(host=store.host, port=store.port, prefix=prefix, rank=rank, size=order.size, timeout_s=timeout_s)

    def _received(self, order: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights of an order. Where the bridge breaks, what has not come yet comes over the next one."""
        done = set[str]()
        while True:
            try:
                for name, tensor in self._bridge_of(order).receive():
                    self._moved(f"weights of version {order.version}, {name}")
                    if name not in done:
                        done.add(name)
                        yield name, tensor
                return
            except BridgeBroken:
                self._bridge = None
            order = self._called(self._next_word(None), begun=order.version)

    @overload
    def _next_word(self, order: Weights) -> Weights | Go: ...
    @overload
    def _next_word(self, order: None) -> Weights: ...
    def _next_word(self, order: Weights | None) -> Weights | Go:
        """Wait for the word to take the weights of `order`, or for another order to this engine."""
        while True:
            for command in self._heard():
                match command:
                    case Close():  # the trainers end without their engines
                        self.end()
                        raise SystemExit(128 + command.signal if command.signal else 0)
                    case Weights() if self._world.engine in command.ranks:
                        return command
                    case Go() if order is not None and command.generation == order.generation:
                        return command
                    case _:
                        self._obey(command)
            self._rest(f"{watch.WAITS}weights")

    def _bridge_of(self, order: Weights) -> Bridge:
        if self._bridge is None or self._bridge[0] != order.generation:
            rank = order.ranks[self._world.engine] + self._world.rank
            store = place_of(self._world.shared, order.generation)
            self._bridge = order.generation, Bridge(store, rank, order.size, self._world.device, self._timeout)
        return self._bridge[1]

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
        keys = [key_of(request) for request in requests]
        job.taken.update(keys)
        self._owner |= dict.fromkeys(keys, job)
        self._engine.submit(requests, job.order.sampling)

    def _draw(self) -> None:
        for job in self._jobs.values():
            job.grading.check()
        if self._held or not self._engine.running:
            self._rest(f"{watch.WAITS}requests")
            return
        start = time.monotonic()
        ended = self._engine.step()
        for rollout in ended:
            self._ended(rollout)
        self._busy += time.monotonic() - start
        drawn = self._engine.tokens
        if ended or drawn != self._drawn:
            self._drawn = drawn
            self._moved("rollouts")

    def _rest(self, place: str) -> None:
        time.sleep(_IDLE_S)
        self._moved(place)

    def _moved(self, place: str) -> None:
        watch.mark(place)
        self._pulse.beat(place)

    def _ended(self, rollout: Rollout) -> None:
        owner = self._owner.pop(key_of(rollout))
        if isinstance(owner, _Job):
            if self._leads and owner.order.number in self._jobs:  # else another engine has drawn it too, and the job is done
                owner.grading.add(rollout)
            return
        owner.rollouts.append(rollout)
        if len(owner.rollouts) == len(owner.order.requests):
            self._answer(Probed(number=owner.order.number, rollouts=in_order(owner.order.requests, owner.rollouts)))
