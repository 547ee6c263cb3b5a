"""Weights on their way to the engines: who takes part, and what becomes of those who are lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from polaris.config.rollout import RolloutConfig
from polaris.distributed import watch
from polaris.distributed.mesh import World
from polaris.sampling.fleet import Fleet
from polaris.sampling.mailbox import Answer, Channel, Go, Ready, Served, Weights
from polaris.sync.bridge import Bridge, BridgeBroken, place_of

if TYPE_CHECKING:
    import torch

_POLL_S = 0.003
_RUMOUR_S = 5.0
"""How long after a bridge broke the first trainer waits to hear which engine was lost."""


class Delivery:
    """Of the first trainer. `look` hears what engines say, and tells `hear` of it."""

    def __init__(self, world: World, fleet: Fleet, commands: Channel, look: Callable[[], None], patience: timedelta) -> None:
        self._world, self._fleet, self._commands, self._look, self._patience = world, fleet, commands, look, patience
        self._generation = self._version = 0
        self._bridge: tuple[tuple[tuple[int, int], ...], Bridge] | None = None
        self._ready: set[int] = set()
        self._served: dict[int, Served] = {}
        self._awaited = frozenset[int]()
        """Engines whose weights are on the way; the word of one for whom the way broke comes too late."""
        self.busy = 0.0

    def send(self, weights: Iterator[tuple[str, torch.Tensor]], version: int, engines: Sequence[int]) -> None:
        """Send weights to these engines. `Fleet.present` are those that serve them then; `weights` may not have been read to their end."""
        self._version = version
        for engine in engines:
            self._fleet.serves(engine, False)
        members = tuple((engine, self._fleet.life(engine)) for engine in engines)
        if not members or not self._gather(members):
            return
        lost, self._awaited = len(self._fleet.lost), frozenset(engines)
        try:
            self._bridge_of(members).send(weights)
        except BridgeBroken as error:
            self._bridge, self._awaited = None, frozenset()
            self._until(lambda: len(self._fleet.lost) > lost, _RUMOUR_S)
            if len(self._fleet.lost) == lost:
                self._fleet.count(f"the transfer of the weights of version {version} broke: {error}")
            return
        self._until(lambda: not [engine for engine in self._left(members) if engine not in self._served])
        served = [self._served[engine] for engine in self._left(members)]
        if served:
            self.busy = sum(one.busy / one.seconds for one in served) / len(served)

    def hear(self, engine: int, answer: Answer) -> None:
        """What an engine says of weights."""
        if isinstance(answer, Ready):
            self._fleet.has_read(engine, answer.read)
            if answer.generation == self._generation:
                self._ready.add(engine)
        elif isinstance(answer, Served) and answer.version == self._version and engine in self._awaited:
            self._served[engine] = answer
            self._fleet.serves(engine)

    def _gather(self, members: Sequence[tuple[int, int]]) -> bool:
        """Call the members together; False if one was lost before all were ready."""
        ranks, size = dict[int, int](), 1
        for engine, _ in members:
            ranks[engine] = size
            size += self._fleet.bridge_ranks(engine)
        if self._bridge is None or self._bridge[0] != tuple(members):
            self._bridge = None
            self._generation += 1
        self._ready.clear()
        self._served.clear()
        self._commands.send(Weights(version=self._version, generation=self._generation, ranks=ranks, size=size))
        self._until(lambda: not set(self._left(members)) - self._ready)
        if self._left(members) != [engine for engine, _ in members]:
            return False
        self._commands.send(Go(generation=self._generation))
        return True

    def _bridge_of(self, members: tuple[tuple[int, int], ...]) -> Bridge:
        if self._bridge is None:
            size = 1 + sum(self._fleet.bridge_ranks(engine) for engine, _ in members)
            store = place_of(self._world.shared, self._generation)
            self._bridge = members, Bridge(store, 0, size, self._world.device, self._patience)
        return self._bridge[1]

    def _left(self, members: Sequence[tuple[int, int]]) -> list[int]:
        """Those of the members that were not lost since."""
        arrived = self._fleet.arrived
        return [engine for engine, life in members if engine in arrived and self._fleet.life(engine) == life]

    def _until(self, over: Callable[[], bool], seconds: float = float("inf")) -> None:
        deadline = time.monotonic() + seconds
        watch.mark(f"{watch.WAITS}engines {', '.join(map(str, self._fleet.arrived))} to take weights")
        while not over() and time.monotonic() < deadline:
            self._look()
            time.sleep(_POLL_S)


def bridge_patience(config: RolloutConfig) -> timedelta:
    """How long members of a bridge wait for each other: the rank above an engine, which waits for its process to move, has more time."""
    return timedelta(minutes=config.engine_timeout_minutes / 2)
