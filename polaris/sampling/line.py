"""One engine at work on the queue: it takes requests as it has room, until the queue is empty or the step has enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from polaris.rollout.isolation import any_kernel, preserved_randomness
from polaris.rollout.types import GenerationInterrupted, Sampling, Stepwise
from polaris.sampling.queue import NOTHING, Queue
from polaris.types import Rollout

_INTERVAL_S = 0.1
"""Shortest time between two looks at whether the step has enough, and between two reports of progress."""


def room_of(engine: Stepwise, most: int, lanes: int) -> int:
    """Requests to claim now, of `most` that the engine decodes together. Among several engines few at a time, so that one that begins
    late finds its own, and none while some wait for memory: another engine may have room for them."""
    if engine.waiting:
        return 0
    room = most - engine.running
    return room if lanes == 1 else min(room, max(1, most // 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one engine needs. Ranks that share it (`peers`) make the same calls: the first of them, which `leads`, claims and decides."""

    engine: Stepwise
    queue: Queue
    lane: int
    lanes: int
    most: int
    """Requests that the engine decodes together."""
    leads: bool
    peers: dist.ProcessGroup | None
    should_stop: Callable[[], bool]
    should_end: Callable[[bool], bool]
    """Whether the step has enough; told whether a response has just ended."""
    on_ended: Callable[[Rollout], None]
    on_progress: Callable[[], None]

    def run(self, sampling: Sampling) -> list[Rollout]:
        """Draw until nothing is left; what is cut off, as "abort", where the step has enough before.

        Raises:
            GenerationInterrupted: a stop was requested; the engine can be used again.
        """
        ended, looked = True, time.monotonic()  # what was carried over may be enough already
        with preserved_randomness(), any_kernel():
            while True:
                due = time.monotonic() - looked >= _INTERVAL_S
                looked = time.monotonic() if due else looked
                stop, enough, *claim = self._agreed(self.should_stop(), self.leads and (due or ended) and self.should_end(ended))
                if stop:
                    self.engine.abort()
                    raise GenerationInterrupted
                if enough:
                    return self.engine.abort()
                lane, start, count = claim
                if count:
                    self.engine.submit(self.queue.requests((lane, start, count)), sampling)
                if not self.engine.running:
                    self.on_progress()
                    return []
                rollouts = self.engine.step()
                for rollout in rollouts:
                    self.on_ended(rollout)
                ended = bool(rollouts)
                if due:
                    self.on_progress()

    def _agreed(self, stop: bool, enough: bool) -> tuple[int, int, int, int, int]:
        """Stop, enough, and a claim of the queue, the same on all ranks that share the engine."""
        room = room_of(self.engine, self.most, self.lanes)
        claim = self.queue.claim(self.lane, room, self.engine.running) if self.leads and room > 0 and not stop and not enough else NOTHING
        if self.peers is None:
            return int(stop), int(enough), *claim
        votes = torch.tensor([stop, enough, *claim], dtype=torch.int64)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.peers)
        voted: tuple[int, int, int, int, int] = tuple(votes.tolist())
        return voted
