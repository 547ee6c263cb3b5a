"""SIGTERM and Ctrl-C request a stop at the next safe point. A second one ends the process, and so does one during start."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPED = b"polaris: stopped; the same command goes on from what is on disk\n"

_HEARD = (signal.SIGINT, signal.SIGTERM)
_ECHO_S = 1.0
"""Slurm signals every process, and torchrun passes its own signal on to its ranks, so one request may arrive twice."""


def is_main() -> bool:
    """Whether this process speaks for all ranks; known before there is a process group."""
    return os.environ.get("RANK", "0") == "0"


class Stopped(SystemExit):
    """A signal has ended the work, unlike user code that calls `sys.exit`."""


class StopRequest:
    """Installed at start; `requested` is polled inside rollouts and between phases. `number` is the signal's, 0 before it came."""

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._idle = self._raises = False
        self._saying = threading.Lock()

    def install(self) -> None:
        """Install the handlers; called in the main thread.

        Python calls a handler only when the main thread returns to Python, which a collective or a kernel may prevent for ever. So a
        second thread reads the signals too, and ends the process where that is due.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # Signals to a child are its own, also one that comes before it has let go of the pipe.
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_let_go)
        threading.Thread(target=self._watch, args=(reading,), name="polaris-signals", daemon=True).start()
        for number in _HEARD:
            signal.signal(number, self._handle)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """For a user's own program: handle the signals inside the block, if this is the main thread, and put its handlers back.

        Where `install` ends the process, `Stopped` is raised, so that the program can clean up.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._raises = True
        handlers = [signal.signal(number, self._handle) for number in _HEARD]
        try:
            yield
        finally:
            for number, handler in zip(_HEARD, handlers, strict=True):
                signal.signal(number, handler)

    def requested(self) -> bool:
        return self.number > 0

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal inside the block ends the process at once: there is nothing to save, for example while an engine starts."""
        before, self._idle = self._idle, True
        try:
            if self.number:
                self._end(self.number)
            yield
        finally:
            self._idle = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._idle or (self.number and not _is_echo(self._since)):
            self._end(number)
        if not self.number:
            self.number, self._since = number, time.monotonic()

    def _watch(self, reading: int) -> None:
        since = 0.0
        while True:
            number = os.read(reading, 1)[0]
            if number not in _HEARD:
                continue
            if self._idle or (since and not _is_echo(since)):
                self._end(number)
            since = since or time.monotonic()

    def _end(self, number: int) -> None:
        if self._raises:
            self.number = self.number or number
            raise Stopped(128 + number)
        alone = os.environ.get("WORLD_SIZE", "1") == "1"
        if self._idle and alone and self._saying.acquire(timeout=0.2):  # both listeners come here
            os.write(2, _STOPPED)  # past the buffer of stderr, which the main thread may hold
        os._exit(128 + number)


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


def _let_go() -> None:
    signal.set_wakeup_fd(-1)
    _release()


def _is_echo(since: float) -> bool:
    """Whether torchrun passes on what this rank has heard itself at `since`."""
    return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - since < _ECHO_S
