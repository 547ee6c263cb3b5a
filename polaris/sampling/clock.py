"""Seconds per phase of one step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from polaris.distributed import watch
from polaris.sampling.context import Reporter


class Clock:
    """Times named phases and shows them on the console; `seconds` maps phase to seconds, summed where a phase comes again."""

    def __init__(self, console: Reporter) -> None:
        self._console = console
        self.restart()

    def restart(self) -> None:
        """Begin a step: no phase has taken any time yet."""
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, *, in_step: bool = True) -> Iterator[None]:
        start = time.perf_counter()
        with self._console.phase(name, in_step=in_step), watch.phase(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._start
