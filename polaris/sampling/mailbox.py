"""What trainers and engines on ranks of their own write to each other, through the store that all ranks of the job share.

Commands go from the first trainer to every engine, and answers from each engine to the first trainer, in the order in which they were
sent. Nobody waits inside of the store. A message is there as a whole or not at all, so one who dies leaves no half of one.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from polaris.rollout.types import RolloutRequest, Sampling
from polaris.types import Prompt, Rollout, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Grading may begin: `config` is the trainers' configuration, with `reward.require_thinking` decided."""

    config: str
    require_thinking: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Job `number`: these requests, in this order, of which each engine takes those that it has room for. Each rollout is graded. An
    `urgent` job comes before others: trainers wait for it already."""

    number: int
    prompts: tuple[Prompt, ...]
    requests: tuple[RolloutRequest, ...]
    sampling: Sampling
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """All that job `number` asked for has arrived."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of `version` come over the bridge of `generation`. Engines draw nothing between them and the next `Probe`."""

    version: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Every engine draws all of these requests at once, ungraded."""

    number: int
    requests: tuple[RolloutRequest, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The end; `signal` is the number of the signal that brought it, or 0."""

    signal: int


Command = Begin | Open | Done | Weights | Probe | Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One response of job `job`."""

    job: int
    scored: ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The engine serves `version`, and has read all commands up to this. It has drawn for `busy` of `seconds` since the version before."""

    version: int
    busy: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the engine drew for probe `number`, in the order of its requests."""

    number: int
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled:
    """The engine's process was sent a signal that asks the run to stop."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The engine is closed."""


Answer = Graded | Served | Probed | Signalled | Ended


class Channel:
    """Messages from one sender, of which each reader reads all. Sending is safe from any thread."""

    def __init__(self, store: Any, name: str) -> None:
        self._store, self._name, self._lock = store, name, threading.Lock()
        self._sent = self._read = self._deleted = 0

    def send(self, message: Command | Answer) -> None:
        """Append a message."""
        with self._lock:
            self._store.set(f"{self._name}/{self._sent}", pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
            self._sent += 1

    def come(self) -> int:
        """How many messages have come that were not received."""
        count = 0
        while self._store.check([f"{self._name}/{self._read + count}"]):
            count += 1
        return count

    def receive(self, count: int, *, last: bool = False) -> Iterator[Any]:
        """The next `count` messages, which have come; deleted where this is the `last` reader."""
        for _ in range(count):
            key = f"{self._name}/{self._read}"
            message = pickle.loads(self._store.get(key))
            self._read += 1
            if last:
                self._store.delete_key(key)
            yield message

    def forget(self, others: Iterable[str] = ()) -> None:
        """Delete what was sent, which all have read, and `others` of the store's keys."""
        for key in (*(f"{self._name}/{number}" for number in range(self._deleted, self._sent)), *others):
            self._store.delete_key(key)
        self._deleted = self._sent


def commands(store: Any) -> Channel:
    """From the first trainer to every engine."""
    return Channel(store, "to")


def answers(store: Any, engines: int) -> list[Channel]:
    """From each engine to the first trainer."""
    return [Channel(store, f"from/{engine}") for engine in range(engines)]


def in_order(requests: Sequence[RolloutRequest], rollouts: Iterable[Rollout]) -> tuple[Rollout, ...]:
    """The rollouts in the order of their requests."""
    found = {key_of(rollout): rollout for rollout in rollouts}
    return tuple(found[key_of(request)] for request in requests)


def key_of(one: RolloutRequest | Rollout) -> tuple[str, int, int]:
    """What tells a response from all others that run at a time."""
    return one.prompt_id, one.sample, one.seed
