"""What the trainers have asked the engines for, and what has come of it; nothing is lost with an engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from polaris.rollout.types import RolloutRequest, Sampling
from polaris.sampling.mailbox import Channel, Done, Graded, Key, Open, Recall, Running, key_of
from polaris.sampling.queue import Queue, longest_first, usual
from polaris.types import Prompt, ScoredRollout


@dataclass(slots=True)
class Job:
    """Requests that were handed out, in the order of the last revision, and what has arrived of `asked`; on the first trainer only."""

    order: Open
    asked: tuple[RolloutRequest, ...]
    arrived: list[ScoredRollout] = field(default_factory=list)
    found: set[Key] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    """Of the store, that its queues leave there."""

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self.asked)


class Jobs:
    """The open jobs. Every trainer counts them, and the first one, which has `commands`, speaks to the engines."""

    def __init__(self, commands: Channel | None, store: Any, lanes: int) -> None:
        self._commands, self._store, self._lanes = commands, store, lanes
        self._open: dict[int, Job] = {}
        self._number = self._recall = 0
        self._asked: set[int] = set()
        self._running: dict[int, set[Key]] = {}
        self._doubted: dict[int, list[Graded]] = {}
        self._unread: list[tuple[int, list[str]]] = []
        """Keys of the store that may go when the engines have read so many commands."""

    def post(
        self,
        prompts: Sequence[Prompt],
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        expected: Mapping[str, float],
        *,
        urgent: bool = False,
    ) -> Job:
        """Hand requests out, those first whose responses are `expected` to be longest (tokens, by prompt). Those of `urgent` jobs are taken
        first, then those of earlier ones."""
        self._number += 1
        order = Open(
            number=self._number,
            prompts=tuple(prompts),
            requests=tuple(longest_first(requests, expected)),
            sampling=sampling,
            expected=usual(requests, expected),
            urgent=urgent,
        )
        job = self._open[order.number] = Job(order, order.requests)
        self._hand_out(job)
        return job

    def close(self, job: Job) -> None:
        """All of it has arrived."""
        del self._open[job.order.number]
        self._say(Done(number=job.order.number))
        if self._commands is not None:
            self._unread.append((self._commands.sent, job.keys))

    def orders(self) -> tuple[Open, ...]:
        """What is open."""
        return tuple(job.order for job in self._open.values())

    def graded(self, engine: int, answer: Graded) -> None:
        """A response has arrived from an engine."""
        if engine in self._doubted:
            self._doubted[engine].append(answer)
        else:
            self._count(answer)

    def doubt(self, engines: Collection[int]) -> None:
        """What comes from these engines counts once they are believed: they are given weights, which are not proven yet."""
        self._doubted |= {engine: self._doubted.get(engine, []) for engine in engines}

    def believe(self, engines: Collection[int]) -> None:
        """Their weights are proven."""
        for engine in engines:
            for answer in self._doubted.pop(engine, []):
                self._count(answer)

    def lose(self, engine: int) -> None:
        """An engine is no more, and what is doubted of it does not count; `recall` follows."""
        self._doubted.pop(engine, None)

    def _count(self, answer: Graded) -> None:
        """A response that was drawn twice, since an engine was lost that was not, counts once."""
        job, key = self._open.get(answer.job), key_of(answer.scored.rollout)
        if job is not None and key not in job.found:
            job.found.add(key)
            job.arrived.append(answer.scored)

    def recall(self, engines: Collection[int]) -> None:
        """An engine was lost, or has come back: hand out again what nobody draws, once all `engines` have said what they draw."""
        for job in self._open.values():
            queue_of(job.order, self._lanes, self._store).close()
        self._recall += 1
        self._asked, self._running = set(engines), defaultdict(set)
        self._say(Recall(number=self._recall))
        self._hand_out_again()

    def running(self, engine: int, answer: Running) -> None:
        """What an engine draws."""
        if answer.number == self._recall and engine in self._asked:
            self._asked.discard(engine)
            for number, keys in answer.keys.items():
                self._running[number] |= keys
            self._hand_out_again()

    def forget(self, read: int) -> None:
        """The engines have read so many commands: the store need not keep them, nor what ended jobs have left there."""
        assert self._commands is not None
        self._commands.forget(read)
        for place, keys in self._unread:
            for key in keys if place <= read else ():
                self._store.delete_key(key)
        self._unread = [(place, keys) for place, keys in self._unread if place > read]

    def _hand_out_again(self) -> None:
        if self._asked:
            return
        for job in self._open.values():
            doubted = {key_of(one.scored.rollout) for held in self._doubted.values() for one in held if one.job == job.order.number}
            elsewhere = job.found | self._running[job.order.number] | doubted
            missing = tuple(request for request in job.asked if key_of(request) not in elsewhere)
            if missing:
                job.order = replace(job.order, requests=missing, revision=job.order.revision + 1)
                self._hand_out(job)

    def _hand_out(self, job: Job) -> None:
        job.keys += queue_of(job.order, self._lanes, self._store).keys
        self._say(job.order)

    def _say(self, command: Any) -> None:
        if self._commands is not None:
            self._commands.send(command)


def queue_of(order: Open, lanes: int, store: Any) -> Queue:
    """The requests of an order, dealt out to the engines."""
    return Queue(order.requests, order.expected, lanes, store, f"job/{order.number}/{order.revision}")
