"""What trainers and engines on ranks of their own write to each other, through the store that all ranks of the job share.

Commands go from the first trainer to every engine, and answers from each engine to the first trainer, in the order in which they were
sent. An engine that was started again reads on from where it came in. Nobody waits inside of the store. A message is there as a whole or
not at all, so one who dies leaves no half of one.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polaris.rollout.types import RolloutRequest, Sampling
from polaris.types import Prompt, Rollout, ScoredRollout

Key = tuple[str, int, int]
"""Prompt, sample and seed: what tells a response from all others that run at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Grading may begin: `config` is the trainers' configuration, with `reward.require_thinking` decided."""

    config: str
    require_thinking: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Job `number`: these requests, in this order, of which each engine takes those that it has room for. Each rollout is graded.
    `expected` are the tokens that a response to each prompt usually has, where any are known. An `urgent` job comes before others:
    trainers wait for it already.

    An order of the same number takes the place of the one before, as its next `revision`: what was lost with an engine is drawn again.
    """

    number: int
    prompts: tuple[Prompt, ...]
    requests: tuple[RolloutRequest, ...]
    sampling: Sampling
    expected: Mapping[str, float]
    urgent: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """All that job `number` asked for has arrived."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Every engine says what it draws (`Running`): the queues are closed, since an engine was lost."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of `version` come to the engines in `ranks`, each with the first of its ranks on the bridge of `generation`, which has
    `size` of them. They say `Ready`, and cross it after `Go`; they draw nothing between the weights and the next `Probe`. Where one of them
    is lost, the same version comes again over another one."""

    version: int
    generation: int
    ranks: Mapping[int, int]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """All are ready for the bridge of `generation`."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Every one of `engines` draws all of these requests at once, ungraded."""

    number: int
    requests: tuple[RolloutRequest, ...]
    sampling: Sampling
    engines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The end; `signal` is the number of the signal that brought it, or 0."""

    signal: int


Command = Begin | Open | Done | Recall | Weights | Go | Probe | Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What an engine that has just come needs to know: the commands that still hold, and the `place` from which on it reads new ones."""

    commands: tuple[Command, ...]
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """The engine is built, with the weights of the checkpoint; `ranks` of it take part in a bridge."""

    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One response of job `job`."""

    job: int
    scored: ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Answer to recall `number`: the requests of each job that this engine has taken and not answered."""

    number: int
    keys: Mapping[int, frozenset[Key]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The engine waits for weights over the bridge of `generation`, and has `read` so many commands."""

    generation: int
    read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The engine serves `version`. It has drawn for `busy` of `seconds` since the version before."""

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


Answer = Arrived | Graded | Running | Ready | Served | Probed | Signalled | Ended


class Channel:
    """Messages from one sender, of which each reader reads all, from the `place` on that it is at. Sending is safe from any thread."""

    def __init__(self, store: Any, name: str, place: int = 0) -> None:
        self._store, self._name, self._lock = store, name, threading.Lock()
        self.sent = self._deleted = 0
        self.read = place

    def send(self, message: Command | Answer) -> None:
        """Append a message."""
        with self._lock:
            self._store.set(f"{self._name}/{self.sent}", _packed(message))
            self.sent += 1

    def come(self) -> int:
        """How many messages have come that were not received."""
        count = 0
        while self._store.check([f"{self._name}/{self.read + count}"]):
            count += 1
        return count

    def receive(self, count: int, *, last: bool = False) -> Iterator[Any]:
        """The next `count` messages, which have come; deleted where this is the `last` reader."""
        for _ in range(count):
            key = f"{self._name}/{self.read}"
            message = pickle.loads(self._store.get(key))
            self.read += 1
            if last:
                self._store.delete_key(key)
            yield message

    def forget(self, place: int) -> None:
        """Delete what was sent before `place`, which all have read."""
        for number in range(self._deleted, place):
            self._store.delete_key(f"{self._name}/{number}")
        self._deleted = max(self._deleted, place)


def commands(store: Any, place: int = 0) -> Channel:
    """From the first trainer to every engine."""
    return Channel(store, "to", place)


def answers(store: Any, engine: int, life: int) -> Channel:
    """From an engine, in one of its lives, to the first trainer."""
    return Channel(store, f"from/{engine}/{life}")


def welcome(store: Any, engine: int, life: int, message: Welcome) -> None:
    """Say to an engine that has arrived what it needs to know."""
    store.set(_welcome(engine, life), _packed(message))


def welcomed(store: Any, engine: int, life: int) -> Welcome | None:
    """What was said to this engine, if it was."""
    key = _welcome(engine, life)
    message: Welcome | None = pickle.loads(store.get(key)) if store.check([key]) else None
    return message


def in_order(requests: Sequence[RolloutRequest], rollouts: Iterable[Rollout]) -> tuple[Rollout, ...]:
    """The rollouts in the order of their requests."""
    found = {key_of(rollout): rollout for rollout in rollouts}
    return tuple(found[key_of(request)] for request in requests)


def key_of(one: RolloutRequest | Rollout) -> Key:
    """The key of a request, or of its rollout."""
    return one.prompt_id, one.sample, one.seed


def _welcome(engine: int, life: int) -> str:
    return f"welcome/{engine}/{life}"


def _packed(message: Any) -> bytes:
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
