"""One queue of requests over all engines: each has a lane of its own, and helps the fullest one when that is empty."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import ceil, inf

import torch.distributed as dist

from polaris.rollout.types import RolloutRequest

Claim = tuple[int, int, int]
"""A lane, the place of the first request in it, and how many are claimed."""
NOTHING: Claim = (0, 0, 0)


def longest_first(requests: Sequence[RolloutRequest], expected: Mapping[str, float], first: Collection[str] = ()) -> list[RolloutRequest]:
    """The requests of the prompts in `first`, then the others by the `expected` tokens of a response to their prompt, longest first.

    What is started last then ends no engine's step late. A prompt without a history counts as the mean of all that have one. Equal ones
    stay in their order, so that without any history the order stays.
    """
    lengths = usual(requests, expected)
    return sorted(requests, key=lambda one: (one.prompt_id not in first, -lengths.get(one.prompt_id, 0.0)))


def usual(requests: Sequence[RolloutRequest], expected: Mapping[str, float]) -> dict[str, float]:
    """The expected tokens of a response to each prompt of these requests, where any are known; see `longest_first`."""
    mean = sum(expected.values()) / len(expected) if expected else 0.0
    return {one.prompt_id: expected.get(one.prompt_id, mean) for one in requests} if expected else {}


def deal(count: int, lanes: int) -> list[list[int]]:
    """The numbers below `count` dealt out to lanes, there and back, so that no lane has all the longest; neighbours are spread.

    >>> deal(7, 3)
    [[0, 5, 6], [1, 4], [2, 3]]
    """
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    for number in range(count):
        turn, place = divmod(number, lanes)
        dealt[place if turn % 2 == 0 else lanes - 1 - place].append(number)
    return dealt


def bunches(requests: Sequence[RolloutRequest], expected: Mapping[str, float]) -> list[list[int]]:
    """The numbers of neighbouring requests that stay together, since each engine that draws a prompt has to read it first: as many samples
    of a prompt as its tokens are times those of a response, rounded up. So an engine reads no more than it draws.

    One by one go those of which no length is known, and those that go on with a response, which is theirs alone to read.
    """
    lengths, found, before = usual(requests, expected), list[list[int]](), None
    for number, request in enumerate(requests):
        most = ceil(len(request.prompt_tokens) / max(1.0, lengths.get(request.prompt_id, inf))) if request.max_tokens is None else 1
        if request.prompt_id == before and len(found[-1]) < most:
            found[-1].append(number)
        else:
            found.append([number])
        before = request.prompt_id
    return found


class Queue:
    """The requests of one draw, the same on every rank, dealt out in `bunches`; `store`, under `name`, counts how many of each lane are
    claimed.

    A claim is one atomic addition in the store, so no request is drawn twice and none is left, whichever engine comes first.
    """

    def __init__(self, requests: Sequence[RolloutRequest], expected: Mapping[str, float], lanes: int, store: dist.Store, name: str) -> None:
        together = bunches(requests, expected)
        self._requests = requests
        self._lanes = [[number for place in lane for number in together[place]] for lane in deal(len(together), lanes)]
        self._store, self._keys = store, [f"{name}/lane/{lane}" for lane in range(lanes)]
        self._open = set(range(lanes))

    @property
    def keys(self) -> list[str]:
        """The keys that it leaves in the store."""
        return self._keys

    def close(self) -> None:
        """Leave nothing to claim, for any engine."""
        for key, lane in zip(self._keys, self._lanes, strict=True):
            self._store.add(key, len(lane))

    def claim(self, lane: int, most: int, running: int) -> Claim:
        """Up to `most` further requests for an engine that has `running` ones: of its own lane, or one of the fullest lane if that is
        empty; `NOTHING` if all are.

        An engine helps others only while it runs fewer than its lane had, since one that begins first would take theirs otherwise, and
        fewer than twice what the fullest lane has left: what it takes too early, it takes from the memory of its own later tokens. One
        whose lane had less than its part counts as if it had had that, or a request.
        """
        if lane in self._open and (claim := self._claim(lane, most))[2]:
            return claim
        part = max(1, len(self._lanes[lane]), len(self._requests) // len(self._lanes))
        while self._open and running < part:
            left = {other: len(self._lanes[other]) - self._store.add(self._keys[other], 0) for other in sorted(self._open)}
            fullest = max(left, key=lambda other: left[other])
            if left[fullest] <= 0:
                self._open.clear()
            if running >= 2 * left[fullest]:
                return NOTHING
            if (claim := self._claim(fullest, 1))[2]:
                return claim
        return NOTHING

    def requests(self, claim: Claim) -> list[RolloutRequest]:
        """What was claimed."""
        lane, start, count = claim
        return [self._requests[number] for number in self._lanes[lane][start : start + count]]

    def lane(self, lane: int) -> list[RolloutRequest]:
        """All of a lane, for an engine that is given its share at once."""
        return self.requests((lane, 0, len(self._lanes[lane])))

    def _claim(self, lane: int, most: int) -> Claim:
        start = self._store.add(self._keys[lane], most) - most
        count = max(0, min(most, len(self._lanes[lane]) - start))
        if start + most >= len(self._lanes[lane]):
            self._open.discard(lane)
        return lane, start, count
