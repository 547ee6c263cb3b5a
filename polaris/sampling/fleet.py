"""Which engines there are: the lives of each, as the first trainer sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from polaris.config.rollout import RolloutConfig
from polaris.distributed.supervise import Lives
from polaris.errors import RunFailed
from polaris.sampling.mailbox import Answer, Arrived, Channel, Ended, answers

_MARGIN_S = 10.0
"""How much longer an engine may be silent here than for the rank above it, which sees more and should say why."""
_LOOK_S = 0.25
"""Between two looks for engines that were lost."""


@dataclass(slots=True)
class _Member:
    """An engine. It has `arrived` when its process is built, and is `present` when it serves the present weights; `proven` once these were
    proof. It has `read` so many commands."""

    lives: Lives
    answers: Channel
    life: int = 0
    arrived: bool = False
    present: bool = False
    proven: bool = False
    ended: bool = False
    bridge_ranks: int = 1
    read: int = 0
    beats: Sequence[Any] = ()
    heard: float = field(default_factory=time.monotonic)


class Fleet:
    """The engines, by number. `beats(engine)` changes as long as the machine of an engine is there (`polaris.distributed.watch`)."""

    def __init__(self, store: Any, engines: int, beats: Callable[[int], Sequence[Any]], config: RolloutConfig, patience_s: float) -> None:
        self._store, self._beats, self._most, self._patience_s = store, beats, config.engine_restarts, patience_s
        self._silence_s = 60 * config.engine_timeout_minutes
        self._members = [_Member(Lives(store, engine), answers(store, engine, 0)) for engine in range(engines)]
        self._looked, self._alone_s = time.monotonic(), 0.0
        self.lost: list[str] = []
        """What was lost so far, and why."""

    @property
    def arrived(self) -> list[int]:
        """Engines that can be spoken to."""
        return self._those(lambda member: member.arrived)

    @property
    def present(self) -> list[int]:
        """Engines that serve the present weights."""
        return self._those(lambda member: member.present)

    @property
    def waiting(self) -> list[int]:
        """Engines that have arrived, and need weights."""
        return self._those(lambda member: member.arrived and not member.present)

    @property
    def absent(self) -> list[int]:
        """Engines that are starting."""
        return self._those(lambda member: not member.arrived and not member.ended)

    @property
    def all_read(self) -> int:
        """Commands that every engine has read that can be spoken to."""
        return min((member.read for member in self._members if member.arrived), default=0)

    def life(self, engine: int) -> int:
        return self._members[engine].life

    def bridge_ranks(self, engine: int) -> int:
        """Ranks of an engine that take part in a bridge."""
        return self._members[engine].bridge_ranks

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """What engines have said."""
        for engine, member in enumerate(self._members):
            for answer in member.answers.receive(member.answers.come(), last=True):
                match answer:
                    case Arrived():
                        member.arrived, member.bridge_ranks = True, answer.ranks
                        member.heard = time.monotonic()
                    case Ended():
                        member.ended, member.arrived, member.present = True, False, False
                yield engine, answer

    def has_read(self, engine: int, commands: int) -> None:
        self._members[engine].read = commands

    def serves(self, engine: int, present: bool = True) -> None:
        """The engine serves the present weights, or does not."""
        self._members[engine].present = present

    def was_proven(self, engines: Collection[int]) -> None:
        """Their weights were proof, in this life."""
        for engine in engines:
            self._members[engine].proven = True

    def is_new(self, engine: int) -> bool:
        """Whether it was started again, and nothing was proven since."""
        return self._members[engine].life > 0 and not self._members[engine].proven

    def end(self, engine: int, reason: str) -> None:
        """Let an engine be started again."""
        self._members[engine].lives.end(self.life(engine), reason)
        self._looked = 0.0

    def fallen(self) -> list[tuple[int, str]]:
        """Engines that were lost since the last look, and why; they are started again.

        Raises:
            RunFailed: too many were, or none has come back for too long.
        """
        now = time.monotonic()
        if (passed := now - self._looked) < _LOOK_S:
            return []
        self._looked, found = now, list[tuple[int, str]]()
        for engine, member in enumerate(self._members):
            if not member.ended and (reason := member.lives.reason(member.life) or self._silence(engine, now)) is not None:
                member.lives.end(member.life, reason)
                for _ in member.answers.receive(member.answers.come(), last=True):
                    pass  # nor is it left in the store
                member.life += 1
                member.arrived = member.present = member.proven = False
                member.answers = answers(self._store, engine, member.life)
                found.append((engine, reason))
                self.count(f"engine {engine} {reason}")
        alone = self.lost and not any(member.arrived or member.ended for member in self._members)
        self._alone_s = self._alone_s + min(passed, 1.0) if alone else 0.0  # nobody looks while trainers update
        if self._alone_s > self._patience_s:
            raise RunFailed(
                f"no engine has come back for {self._patience_s / 60:g} minutes (distributed.update_timeout_minutes). The last loss: "
                f"{self.lost[-1]}. What is finished is on disk, and the same command goes on from there"
            )
        return found

    def count(self, what: str) -> None:
        """One more loss. Raises `RunFailed` if they are too many."""
        self.lost.append(what)
        if len(self.lost) > self._most:
            raise RunFailed(
                f"{what}: that is loss {len(self.lost)} of this run, and rollout.engine_restarts allows {self._most}. Mend the cause, or "
                "raise it; what is finished is on disk, and the same command goes on from there"
            )

    def _silence(self, engine: int, now: float) -> str | None:
        """Why an engine counts as lost that says nothing, as when its machine is gone."""
        member, beats = self._members[engine], self._beats(engine)
        if beats != member.beats:
            member.beats, member.heard = beats, now
        if not member.arrived or now - member.heard <= self._silence_s + _MARGIN_S:
            return None
        return f"gave no sign of life for {self._silence_s / 60:g} minutes (rollout.engine_timeout_minutes), as where its machine is gone"

    def _those(self, chosen: Callable[[_Member], bool]) -> list[int]:
        return [engine for engine, member in enumerate(self._members) if chosen(member)]
