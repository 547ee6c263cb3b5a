"""One draw, simulated: which engine takes which response, and when. Written after the rules of `polaris.sampling`, without its code."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from benchmarks.rollout.engines import Engine, Response

Share = Literal["contiguous", "dealt", "by length", "queue"]
"""How engines get responses: neighbouring ones, there and back, by the expected tokens of an engine, or there and back with helping."""


@dataclass(slots=True)
class Lane:
    """What is left of an engine's own responses, and how many they were."""

    left: deque[Response]
    size: int


def lanes_of(responses: Sequence[Response], engines: int, share: Share, expected: Callable[[Response], float]) -> list[Lane]:
    """The responses of each engine in its order. "by length" gives each to the engine that expects the fewest tokens so far; "queue" keeps
    so many samples of a prompt together that an engine draws as many tokens as it reads. `expected` is 0 where nothing is known."""
    dealt: list[list[Response]] = [[] for _ in range(engines)]
    loads, bunch, size = [0.0] * engines, -1, 0
    for number, response in enumerate(responses):
        if share == "contiguous":
            lane = number * engines // len(responses)
        elif share == "by length":
            lane = loads.index(min(loads))
            loads[lane] += expected(response) + 1
        else:
            most = _together(response, expected(response)) if share == "queue" else 1
            if number and responses[number - 1].prompt == response.prompt and size < most:
                size += 1
            else:
                bunch, size = bunch + 1, 1
            place = bunch % (2 * engines)
            lane = min(place, 2 * engines - 1 - place)
        dealt[lane].append(response)
    return [Lane(deque(one), len(one)) for one in dealt]


def _together(response: Response, expected: float) -> int:
    """Samples of its prompt that stay together with a response. One that goes on has tokens of its own to read."""
    return ceil(response.prompt_tokens / expected) if expected and not response.parts else 1


@dataclass(slots=True, kw_only=True)
class Draw:
    """Responses in lanes, one for each engine. An engine takes at most `chunk` of its own lane before a step of its sequences; once that is
    empty, one of the fullest lane, if it runs fewer than its own were, or its part, and than `helps` times what is left there (0: never).
    None is taken while one has no memory.

    `ended(response)` says whether the draw has enough now; then each engine stops after the step that it is in.
    """

    engines: Sequence[Engine]
    lanes: list[Lane]
    chunk: int
    helps: float
    ended: Callable[[Response], None]
    enough: Callable[[], bool]
    stopped: list[int] = field(default_factory=list)
    """When each engine was done, in picoseconds."""
    cut: list[Response] = field(default_factory=list)
    taken: list[list[tuple[int, int, int]]] = field(default_factory=list)
    """Of each engine, (picoseconds, prompt, sample) of what it took."""

    def run(self) -> int:
        """The picoseconds that it takes."""
        count = len(self.engines)
        self.stopped, self.taken = [0] * count, [[] for _ in range(count)]
        queue = [(0, lane) for lane in range(count)]
        plans = [(0, 0)] * count
        while queue:
            now, lane = heapq.heappop(queue)
            engine = self.engines[lane]
            self._draw(engine, plans[lane][1])
            self.stopped[lane] = now
            if self.enough():
                self.cut += engine.abort()
                self._stop(now, lane, queue, plans)
                break
            if taken := self._claim(lane):
                engine.submit(taken)
                self.taken[lane] += [(now, one.prompt, one.sample) for one in taken]
            if engine.unfinished:
                steps = engine.plan()
                if self._could_claim(lane):
                    steps = 1
                plans[lane] = (now, steps)
                heapq.heappush(queue, (now + engine.duration(steps), lane))
        return max(self.stopped)

    def _draw(self, engine: Engine, steps: int) -> None:
        for response in engine.draw(steps) if steps else ():
            self.ended(response)

    def _claim(self, lane: int) -> list[Response]:
        engine, own = self.engines[lane], self.lanes[lane]
        room = min(engine.hardware.most - engine.unfinished, self.chunk)
        if engine.waiting or room <= 0:
            return []
        if own.left:
            return [own.left.popleft() for _ in range(min(room, len(own.left)))]
        return [self._fullest.left.popleft()] if self._may_help(engine, own) else []

    def _could_claim(self, lane: int) -> bool:
        """Whether it may claim something after its next step, though none of its own ends in it."""
        engine, own = self.engines[lane], self.lanes[lane]
        if engine.waiting or engine.unfinished >= engine.hardware.most:
            return False
        return bool(own.left) or self._may_help(engine, own)

    @property
    def _fullest(self) -> Lane:
        return max(self.lanes, key=lambda one: len(one.left))

    def _may_help(self, engine: Engine, own: Lane) -> bool:
        left = len(self._fullest.left)
        part = max(1, own.size, sum(lane.size for lane in self.lanes) // len(self.lanes))
        return left > 0 and self.helps > 0 and engine.unfinished < min(part, self.helps * left)

    def _stop(self, now: int, stopper: int, queue: list[tuple[int, int]], plans: list[tuple[int, int]]) -> None:
        """Each other engine looks after its step, of those that are planned, that ends then or later."""
        for end, lane in sorted(queue):
            engine, (start, steps) = self.engines[lane], plans[lane]
            if steps:
                low, high = 1, steps
                while low < high:
                    middle = (low + high) // 2
                    low, high = (low, middle) if (start + engine.duration(middle), lane) > (now, stopper) else (middle + 1, high)
                end = start + engine.duration(low)
                self._draw(engine, low)
            self.stopped[lane] = end
            self.cut += engine.abort()
