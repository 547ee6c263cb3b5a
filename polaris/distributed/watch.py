"""Names the rank that hangs. Without it, a collective that waits for a stuck rank would be silent for hours.

Every rank marks where it is, and a thread of it writes heartbeats to torchrun's key-value store. A rank without progress for longer
than its limit asks all others where they are, prints the answers, and ends its process; torchrun then stops the rest. The thread
sees what collectives cannot: which process no longer runs, and at which line the main thread of a running one is.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_stack

import torch.distributed as dist

from polaris.config.training import DistributedConfig
from polaris.distributed.speaker import speaker

BEAT_S = 2.0
"""Seconds between two heartbeats."""
_LATER_S = 5 * BEAT_S
"""A rank whose store says nothing gives up so much later than one that can name the ranks that hang."""
_LOST = "update_timeout_minutes"
"""The setting that says how long a machine may give no sign of life, whatever its ranks do."""
WAITS = "waits for "
"""How a place begins that says for whom the rank waits."""
_START = "start"
_OURS, _TORCH = str(Path(__file__).parents[1]), str(Path(dist.__file__).parent)


class _Watch:
    """The watching thread of one rank. The rank is at `place` and must leave it before `deadline` (monotonic seconds).

    Clocks of different nodes are never compared: a heartbeat is a growing count, and ages are sent as durations.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, limits: DistributedConfig, trainers: int = 0) -> None:
        self._store, self._rank, self._size, self.limits = store, rank, size, limits
        self._attempt = attempt()
        self._main = threading.main_thread().ident or 0
        self._beats = 0
        self._ended = threading.Event()
        self.urgent, self.phase = False, ""
        self.move(_START)
        store.set(self._key("host", rank), socket.gethostname())
        self._heard, self._trainers = time.monotonic(), trainers
        self._last: dict[int, tuple[bytes, float]] = {}
        self._thread = threading.Thread(target=self._run, name="polaris-watch", daemon=True)
        self._guard = threading.Thread(target=self._watch_store, name="polaris-guard", daemon=True)
        self._thread.start()
        self._guard.start()

    def move(self, place: str) -> None:
        self.place, self._since = place, time.monotonic()
        self.deadline = self._since + 60 * self._limit()[1]

    def _limit(self) -> tuple[str, float]:
        """The setting that limits this place, and its minutes."""
        if self.urgent:
            return "update_timeout_minutes", self.limits.update_timeout_minutes
        return "wait_timeout_hours", 60 * self.limits.wait_timeout_hours

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._guard.join()

    def _watch_store(self) -> None:
        """End this process where the store, which is on the first machine, has not answered for too long: the other thread waits in it."""
        minutes = self.limits.update_timeout_minutes
        while time.monotonic() - self._heard < 60 * minutes + _LATER_S:
            if self._ended.wait(1.0):
                return
        said = f"nothing was heard of {os.environ.get('MASTER_ADDR')} for {minutes:g} minutes (distributed.update_timeout_minutes)"
        end = "Is that machine gone, or the network? What is finished is on disk, and the same command goes on from there"
        print(f"{speaker(self._rank, f'in {self.place}')}: {said}. {end}", file=sys.stderr, flush=True)
        os._exit(1)

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._heard = time.monotonic()
            try:
                self._beat()
                if self._store.check([self._key("asked")]):
                    self._answer()
                if self._lost():
                    self._expire(_LOST, "no heartbeat of a rank")
                elif time.monotonic() > self.deadline:
                    self._expire(self._limit()[0], "no progress")
            except RuntimeError:
                self._ended.set()
                return  # the store is gone with torchrun, which ends this process too

    def _key(self, name: str, rank: int | None = None) -> str:
        return _key(self._attempt, name, rank)

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(self._key("beat", self._rank), str(self._beats))

    def _answer(self) -> None:
        answer = [self.place, time.monotonic() - self._since, *self._standing()]
        self._store.set(self._key("where", self._rank), json.dumps(answer))

    def _standing(self) -> tuple[str, bool]:
        """Where the main thread is, in our code and below it, and whether it waits in a collective.

        No source file is read, since the file system itself may hang.
        """
        frame = sys._current_frames().get(self._main)
        frames = [(f.f_code.co_filename, f"{Path(f.f_code.co_filename).name}:{line} ({f.f_code.co_name})") for f, line in walk_stack(frame)]
        ours = [place for file, place in frames if file.startswith(_OURS)]
        places = (*ours[:1], *(place for _, place in frames[:1]))
        return ", ".join(dict.fromkeys(places)), any(file.startswith(_TORCH) for file, _ in frames[:6])

    def _lost(self) -> bool:
        """Whether rank 0, which is where the store is, has heard nothing of another trainer for too long."""
        now = time.monotonic()
        for rank, count in enumerate(heartbeats(self._store, range(self._trainers)) if self._rank == 0 else ()):
            if count is not None and self._last.get(rank, (None, now))[0] != count:
                self._last[rank] = (count, now)
        limit = 60 * self.limits.update_timeout_minutes + 2 * BEAT_S
        return any(now - since > limit for _, since in self._last.values())

    def _expire(self, setting: str, what: str) -> None:
        place = self.place
        minutes = self._limit()[1] if setting != _LOST else self.limits.update_timeout_minutes
        self._store.set(self._key("asked"), "1")
        before = self._counts()
        for _ in range(3):  # the others answer at their next heartbeat
            self._answer()
            self._beat()
            time.sleep(BEAT_S)
        if time.monotonic() <= self.deadline and not self._lost():
            return  # the rank has moved on
        after = self._counts()
        silent = {rank for rank in range(self._size) if before[rank] == after[rank] or not self._store.check([self._key("where", rank)])}
        if self._store.add(self._key("speaker"), 1) == 1:
            head = f"polaris, rank {self._rank}: {what} for {minutes:g} minutes (distributed.{setting}) at: {place}. The ranks:"
            end = "What is finished is on disk, and the same command goes on from there"
            print(head, *self._report(silent), end, sep="\n", file=sys.stderr, flush=True)
        else:
            time.sleep(2 * BEAT_S)  # only one rank prints, and torchrun ends it once another one has ended
        os._exit(1)

    def _counts(self) -> list[bytes | None]:
        """The heartbeat count of each rank."""
        return heartbeats(self._store, range(self._size))

    def _report(self, silent: set[int]) -> list[str]:
        """One line per rank, suspects first: ranks without a heartbeat, then ranks that wait in no collective.

        A rank that waits for its GPU is not in a collective as its host sees it.
        """
        facts = [(0, f"  rank {rank} HANGS: its process has no heartbeat{self._on(rank)}") for rank in sorted(silent)]
        for rank in sorted(set(range(self._size)) - silent):
            place, seconds, standing, waits = json.loads(self._store.get(self._key("where", rank)))
            named = place.startswith(WAITS)
            words = "" if named else "waits for others: " if waits else "HANGS, is slow, or waits for its GPU: "
            facts.append((2 if waits or named else 1, f"  rank {rank} {words}{place}, for {seconds:.0f} s, in {standing}{self._on(rank)}"))
        return [line for _, line in sorted(facts, key=lambda fact: fact[0])]

    def _on(self, rank: int) -> str:
        """The machine of a rank, if it has begun."""
        key = self._key("host", rank)
        return f", on {self._store.get(key).decode()}" if self._store.check([key]) else ""


def heartbeats(store: dist.Store, ranks: Iterable[int]) -> list[bytes | None]:
    """The heartbeat count of each of these ranks; None before the first one."""
    keys = [_key(attempt(), "beat", rank) for rank in ranks]
    return [store.get(key) if store.check([key]) else None for key in keys]


def _key(number: str, name: str, rank: int | None) -> str:
    return f"polaris/{number}/{name}" + ("" if rank is None else f"/{rank}")


def attempt() -> str:
    """Which start of the ranks by torchrun this is. Its store outlives a restart, so that every key must name the attempt."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


_watch: _Watch | None = None


def start(store: dist.Store, rank: int, size: int, limits: DistributedConfig, trainers: int = 0) -> None:
    """Start the watch if there is more than one rank; the first `trainers` of them must not fall silent."""
    global _watch
    if size > 1:
        _watch = _Watch(store, rank, size, limits, trainers)


def stop() -> None:
    """Stop the watch and its thread."""
    global _watch
    if _watch is not None:
        _watch.stop()
    _watch = None


def mark(place: str) -> None:
    """Record that this rank has reached `place`; the time limit starts again."""
    if _watch is not None:
        _watch.move(place)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A phase and its limit: `update` and `sync` are collectives of minutes, others may wait for the slowest rank's rollouts."""
    if _watch is not None:
        _watch.urgent, _watch.phase = name in ("update", "sync"), name
        _watch.move(name)
    place = None
    try:
        yield
        place = f"after {name}"
    finally:
        if _watch is not None:
            _watch.urgent = False
            _watch.phase = _watch.phase if place is None else ""
            _watch.move(place or _watch.place)  # where it has failed, it stays


def where() -> str:
    """Where this rank is, or has failed, as in "in update, pack 1 of 2"; "" where nothing watches it."""
    if _watch is None:
        return ""
    place, phase = _watch.place, _watch.phase
    if place == _START:
        return "at the start"
    place = place if not phase or place.startswith(phase) else f"{phase}, {place}"
    return place if place.startswith("after ") else f"in {place}"
