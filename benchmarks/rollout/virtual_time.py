"""Ranks as threads in virtual time: only the one whose time is earliest runs, so what they do is the same at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Lock
from typing import Any, TypeVar

from torch.distributed import HashStore

T = TypeVar("T")


class VirtualTime:
    """The time of each rank, in picoseconds. Of ranks with the same time the first runs."""

    def __init__(self, ranks: int) -> None:
        lock = Lock()
        self._woken = [Condition(lock) for _ in range(ranks)]
        self._meeting, self._items, self._meetings = [False] * ranks, [list[Any]()] * ranks, 0
        self._everything: list[Any] = []
        self._failed = False
        self.now = [0] * ranks

    def run(self, work: Callable[[int], T]) -> list[T]:
        """`work(rank)` of every rank, in a thread of its own."""
        with ThreadPoolExecutor(len(self.now)) as pool:
            return list(pool.map(lambda rank: self._whole(rank, work), range(len(self.now))))

    def wait(self, rank: int, duration: int) -> None:
        """So long passes for a rank."""
        with self._woken[rank]:
            self.now[rank] += duration
            self._until(rank, lambda: True)

    def meet(self, rank: int, items: Sequence[T]) -> list[T]:
        """The items of all ranks, once all are here; from then on all have the time of the last."""
        with self._woken[rank]:
            meeting = self._meetings
            self._items[rank], self._meeting[rank] = list(items), True
            if all(self._meeting):
                self._everything = [item for items in self._items for item in items]
                self.now, self._meeting = [max(self.now)] * len(self.now), [False] * len(self.now)
                self._meetings += 1
            self._until(rank, lambda: self._meetings > meeting)
            return self._everything

    def _until(self, rank: int, also: Callable[[], bool]) -> None:
        self._wake()
        self._woken[rank].wait_for(lambda: self._failed or (also() and self._first() == rank), timeout=60)
        assert not self._failed
        assert also()

    def _first(self) -> int | None:
        return min((rank for rank, meets in enumerate(self._meeting) if not meets), key=lambda rank: self.now[rank], default=None)

    def _wake(self) -> None:
        for rank in range(len(self.now)) if self._failed else [first for first in [self._first()] if first is not None]:
            self._woken[rank].notify()

    def _whole(self, rank: int, work: Callable[[int], T]) -> T:
        try:
            self.wait(rank, 0)
            result = work(rank)
            self.meet(rank, [])
            with self._woken[rank]:
                self._meeting[rank] = True  # the others go on without it
                self._wake()
            return result
        except BaseException:
            with self._woken[rank]:
                self._failed = True
                self._wake()
            raise


class VirtualWorld:
    """A rank's `polaris.distributed.mesh.World` in virtual time."""

    def __init__(self, rank: int, time: VirtualTime, store: HashStore) -> None:
        self.rank, self.size, self.is_main = rank, len(time.now), rank == 0
        self._time, self._store = time, store

    def gather(self, items: Sequence[T]) -> list[T]:
        return self._time.meet(self.rank, items)

    def any(self, flag: bool) -> bool:
        return any(self.gather([flag]))

    def store(self) -> HashStore:
        return self._store
