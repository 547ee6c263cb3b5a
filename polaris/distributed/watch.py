"""Names the rank that hangs: a collective that waits for a rank that is alive but stuck would otherwise say nothing for hours.

Every rank marks where it is, and a thread of each keeps a sign of life in torchrun's key-value store. A rank that has made no progress
for longer than it may asks all others where they stand, prints that, and ends its process; torchrun then stops the rest. The thread
sees what collectives cannot: which process no longer runs, and in which line the main thread of a living one stands.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from polaris.config.schema import DistributedConfig

BEAT_S = 2.0
"""Seconds between two signs of life."""
_ASKED = "polaris/asked"
_OURS, _TORCH = str(Path(__file__).parents[1]), str(Path(dist.__file__).parent)


class _Watch:
    """The watching thread of one rank. `place` is where the rank is; it must be elsewhere before `deadline` (monotonic seconds)."""

    def __init__(self, store: dist.Store, rank: int, size: int, limits: DistributedConfig) -> None:
        self._store, self._rank, self._size, self.limits = store, rank, size, limits
        self._main = threading.main_thread().ident or 0
        self._ended = threading.Event()
        self.urgent = False
        self.move("start")
        self._thread = threading.Thread(target=self._run, name="polaris-watch", daemon=True)
        self._thread.start()

    def move(self, place: str) -> None:
        limit = 60 * self.limits.update_timeout_minutes if self.urgent else 3600 * self.limits.wait_timeout_hours
        self.place, self.deadline, self._since = place, time.monotonic() + limit, time.time()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self._beat()
                asked = self._store.check([_ASKED])
            except RuntimeError:
                return  # the store went with torchrun, which ends this process too
            if time.monotonic() > self.deadline:
                self._expire()
            if asked:
                self._answer()

    def _beat(self) -> None:
        self._store.set(f"polaris/beat/{self._rank}", str(time.time()))

    def _answer(self) -> None:
        self._store.set(f"polaris/where/{self._rank}", json.dumps([self.place, self._since, *self._standing()]))

    def _standing(self) -> tuple[str, bool]:
        """Where the main thread stands, in our own code and inside of it, and whether it waits in a collective."""
        frames = traceback.extract_stack(sys._current_frames().get(self._main))
        ours = [frame for frame in frames if frame.filename.startswith(_OURS)]
        places = [f"{Path(frame.filename).name}:{frame.lineno} ({frame.name})" for frame in (*ours[-1:], *frames[-1:])]
        return ", ".join(dict.fromkeys(places)), any(frame.filename.startswith(_TORCH) for frame in frames[-6:])

    def _expire(self) -> None:
        minutes = self.limits.update_timeout_minutes if self.urgent else 60 * self.limits.wait_timeout_hours
        setting = "update_timeout_minutes" if self.urgent else "wait_timeout_hours"
        self._store.set(_ASKED, "1")
        for _ in range(3):  # the others answer at their next sign of life
            self._answer()
            self._beat()
            time.sleep(BEAT_S)
        silent = {rank: age for rank in range(self._size) if (age := self._age(rank)) > 2.5 * BEAT_S}
        if self._rank == min(set(range(self._size)) - silent.keys()):
            head = f"polaris, rank {self._rank}: no progress for {minutes:g} minutes (distributed.{setting}) at: {self.place}. The ranks:"
            end = "What is finished is on disk, and the same command goes on from there"
            print(head, *self._report(silent), end, sep="\n", file=sys.stderr, flush=True)
        else:
            time.sleep(BEAT_S)  # one rank speaks, and torchrun ends it as soon as another one has ended
        os._exit(1)

    def _age(self, rank: int) -> float:
        """Seconds since a rank's last sign of life."""
        key = f"polaris/beat/{rank}"
        return time.time() - float(self._store.get(key)) if self._store.check([key]) else float("inf")

    def _report(self, silent: dict[int, float]) -> list[str]:
        """One line per rank, the suspects first: those without a sign of life, then those that wait for nobody."""
        facts = [(0, f"  rank {rank} HANGS: its process has given no sign of life for {age:.0f} s") for rank, age in silent.items()]
        for rank in set(range(self._size)) - silent.keys():
            place, since, standing, waits = json.loads(self._store.get(f"polaris/where/{rank}"))
            words = "waits for others" if waits else "HANGS, or is slow"
            facts.append((2 if waits else 1, f"  rank {rank} {words}: {place}, for {time.time() - since:.0f} s, in {standing}"))
        return [line for _, line in sorted(facts)]


_watch: _Watch | None = None


def start(store: dist.Store, rank: int, size: int, limits: DistributedConfig) -> None:
    """Begin to watch, where there is another rank to wait for."""
    global _watch
    if size > 1:
        _watch = _Watch(store, rank, size, limits)


def stop() -> None:
    """End the watch; nothing is left of it."""
    global _watch
    if _watch is not None:
        _watch.stop()
    _watch = None


def mark(place: str) -> None:
    """This rank has come to `place`: the time limit begins anew."""
    if _watch is not None:
        _watch.move(place)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """`update` and `sync` are collectives of minutes; every other phase may wait for the slowest rank's rollouts."""
    if _watch is not None:
        _watch.urgent = name in ("update", "sync")
        _watch.move(name)
    try:
        yield
    finally:
        if _watch is not None:
            _watch.urgent = False
            _watch.move(f"after {name}")
