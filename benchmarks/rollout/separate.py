"""Engines that sample while the trainer works, on devices of their own, simulated: paced by staleness, nothing discarded."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from benchmarks.rollout.engines import SECOND, Engine, Response
from benchmarks.rollout.policies import Policy, Started, Workload, fresh

_TRAINER = -1
"""Its place among the events: before the engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`train` and `publish` are seconds: of a trainer's step, and in which engines stand still to take new weights.

    A step may train on tokens that are `staleness` versions old. So with weights of `version`, prompts of at most version + 1 + staleness
    steps are begun, and a step takes those first that would be too old in the next.
    """

    staleness: int
    train: float
    publish: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of a whole run: seconds a step without the first and the last, share of their time in which engines work, versions between the
    weights that are trained and those that drew a token, and trained tokens."""

    seconds: float
    busy: float
    staleness_mean: float
    staleness_max: int
    tokens: int
    length_mean: float


class Separate:
    """A run of a workload at a pace. Requests wait in one queue, and an engine takes some before each step of its sequences.

    Under new weights, engines go on with what they have, and read its tokens again.
    """

    def __init__(self, load: Workload, pace: Pace) -> None:
        self.load, self.pace = load, pace
        self._engines = [Engine(load.hardware, 0) for _ in range(load.engines)]
        self._plans = [(0, 0)] * load.engines
        self._events: list[tuple[int, int]] = []
        self._queue: deque[Response] = deque()
        self._started: list[Started] = []
        self._missing: dict[int, int] = {}
        self._due: set[int] = set()
        """Prompts that the present weights must train: later they would be too old."""
        self._begun, self._version, self._complete, self._training = 0, 0, 0, False
        self._published: list[int] = []
        self._ages: list[tuple[int, int]] = []
        self._lengths: list[int] = []

    def run(self) -> Outcome:
        self._begin()
        self._wake(0)
        while self._version < self.load.steps:
            now, who = heapq.heappop(self._events)
            if who == _TRAINER:
                self._publish(now)
            else:
                self._draw(who, self._plans[who][1])
                self._go_on(who, now)
            if not self._training and self._complete >= self.load.prompts:
                self._train(now)
        first, last = self._published[0], self._published[-2]
        tokens = sum(self._lengths)
        return Outcome(
            seconds=(last - first) / (len(self._published) - 2) / SECOND,
            busy=sum(engine.used for engine in self._engines) / (len(self._engines) * self._published[-1]),
            staleness_mean=sum(age * count for age, count in self._ages) / tokens,
            staleness_max=max(age for age, _ in self._ages),
            tokens=tokens,
            length_mean=tokens / len(self._lengths),
        )

    def _begin(self) -> None:
        """Begin as many prompts as may be."""
        steps = min(self.load.steps, self._version + 1 + self.pace.staleness)
        for prompt in range(self._begun, steps * self.load.prompts):
            one = fresh(self.load, prompt, self._version)
            self._started.append(one)
            self._missing[prompt] = self.load.samples
            self._queue += one.responses
        self._begun = max(self._begun, steps * self.load.prompts)

    def _go_on(self, who: int, now: int) -> None:
        """Claim, and plan the next steps; an engine without anything waits for new prompts."""
        engine = self._engines[who]
        if not engine.waiting:
            room = min(engine.hardware.most - engine.unfinished, max(1, engine.hardware.most // Policy(name="").chunk))
            engine.submit([self._queue.popleft() for _ in range(min(room, len(self._queue)))])
        if engine.unfinished:
            steps = engine.plan()
            if self._queue and not engine.waiting and engine.unfinished < engine.hardware.most:
                steps = 1
            self._plans[who] = (now, steps)
            heapq.heappush(self._events, (now + engine.duration(steps), who))

    def _train(self, now: int) -> None:
        """Start a step, if what is due is complete too."""
        places, version = self.load.prompts, self._version
        if any(self._missing[prompt] for prompt in self._due):
            return
        ready = [one for one in self._started if not self._missing[one.prompt]]
        taken = sorted(ready, key=lambda one: one.prompt not in self._due)[:places]
        gone = {one.prompt for one in taken}
        assert self._due <= gone
        self._started = [one for one in self._started if one.prompt not in gone]
        for response in (response for one in taken for response in one.responses):
            self._lengths.append(response.length)
            self._ages += [(version - of, tokens) for of, tokens in response.parts]
        self._training, self._complete = True, self._complete - places
        heapq.heappush(self._events, (now + round(self.pace.train * SECOND), _TRAINER))

    def _publish(self, now: int) -> None:
        """The trainer is done: each engine takes the new weights after the step that it is in."""
        self._training, self._version = False, self._version + 1
        self._published.append(now)
        self._begin()
        ends = {who: self._until(who, now) for _, who in self._events}
        self._events = []
        for engine in self._engines:
            left = engine.abort()
            engine.version = self._version
            engine.submit(left)
        old = self._version + 1 - self.pace.staleness
        self._due = {one.prompt for one in self._started if one.oldest is not None and one.oldest < old}
        self._wake(now + round(self.pace.publish * SECOND), ends)

    def _until(self, who: int, now: int) -> int:
        """Draw up to the first step of those that are planned that ends then or later; when that is."""
        engine, (start, steps) = self._engines[who], self._plans[who]
        low, high = 1, steps
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if start + engine.duration(middle) >= now else (middle + 1, high)
        end = start + engine.duration(low)
        self._draw(who, low)
        return end

    def _draw(self, who: int, steps: int) -> None:
        for response in self._engines[who].draw(steps):
            self._missing[response.prompt] -= 1
            self._complete += not self._missing[response.prompt]

    def _wake(self, now: int, ends: dict[int, int] | None = None) -> None:
        for who in range(len(self._engines)):
            self._go_on(who, max(now, (ends or {}).get(who, 0)))
