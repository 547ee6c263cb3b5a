"""An engine's process below its rank, which starts it again where it dies: torchrun ends all ranks as soon as one dies, but it does not see
this process.

The lives of an engine are numbered. A life ends with a reason in the store, and whoever comes first says it: a rank of the engine, whose
process has died or stands still, or a trainer, to whom the engine says nothing or something wrong. All ranks of the engine then kill
their processes and begin the next life.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from polaris.distributed.speaker import speaker
from polaris.stop import StopRequest

_POLL_S = 0.1
_PULSE_S = 0.5
"""Between two words of a process that it is at work at the same place."""
_FAREWELL_S = 30.0
"""How long a process may go on that is to end."""
_REFUSED = 2
_EXPECTED = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses after which nothing is started again: done, stopped."""
_PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class Lives:
    """How the lives of an engine ended, in the store that all ranks of the job share."""

    def __init__(self, store: Any, engine: int) -> None:
        self._store, self._engine = store, engine

    def end(self, life: int, reason: str) -> None:
        """End a life; the first reason counts."""
        self._store.compare_set(self._key(life), "", reason)

    def reason(self, life: int) -> str | None:
        """Why a life has ended; None if it goes on."""
        key = self._key(life)
        return self._store.get(key).decode() if self._store.check([key]) else None

    @property
    def over(self) -> bool:
        """Whether the trainers need no engine any more."""
        return bool(self._store.check([_OVER]))

    def _key(self, life: int) -> str:
        return f"lost/{self._engine}/{life}"


_OVER = "over"


def say_over(store: Any) -> None:
    """Let no engine begin another life."""
    store.set(_OVER, "")


class Pulse:
    """The process's own end of the pipe on which it says that it is at work, and where; `None` where nobody listens."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe, self._said, self._place = pipe, 0.0, ""
        if pipe is not None:
            os.set_blocking(pipe, False)

    def beat(self, place: str) -> None:
        """The process is at `place`, and has moved since the last time."""
        if self._pipe is not None and (place != self._place or time.monotonic() - self._said > _PULSE_S):
            self._said, self._place = time.monotonic(), place
            with suppress(OSError):  # nobody reads: then nobody is interested
                os.write(self._pipe, f"{place}\n".encode()[-512:])


class Process:
    """`python -m module PIPE PARENT` with `task` on its standard input, in a session of its own. It has Python's path."""

    def __init__(self, module: str, task: bytes) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        places = [place or os.getcwd() for place in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(writing), str(os.getpid())],
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))},
        )
        os.close(writing)
        self.place, self.moved, self.begun = "the start", time.monotonic(), False
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as file:
            file.write(task)

    def poll(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs. Hears where it is."""
        with suppress(BlockingIOError):
            if said := os.read(self._reading, 1 << 16):
                self.place, self.moved, self.begun = said.decode().splitlines()[-1], time.monotonic(), True
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """The exit status, if it ends within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def kill(self) -> None:
        """End it and its own processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._reading)


def end_with_parent(parent: int) -> None:
    """Called by the process: end it when `parent` dies, whatever it dies of."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def supervise(start: Callable[[int], Process], lives: Lives, stop: StopRequest, silence_s: float, start_s: float) -> int:
    """The exit status of the last life. `start` begins the process of a life.

    A process that says nothing for `silence_s`, or `start_s` after its start, is killed, and so is one whose life was ended by others. One
    that is refused, or dies before it first says something, has not come up at all: if that is the first life, so ends the rank. After a
    request to stop nothing is started again.
    """
    life = 0
    with _Guard(silence_s + _FAREWELL_S + 10) as guard:
        while True:
            process = start(life)
            try:
                status = _attend(process, lives, life, stop, guard, silence_s, start_s)
            finally:
                process.kill()
            if isinstance(status, int):
                return status
            lives.end(life, status)
            if stop.number:
                _outlast_trainers(lives, guard)
                return 128 + stop.number
            life += 1


class _Guard:
    """Ends this process, and with it the one below, where the store has not answered for too long: its machine is gone."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self.moved = limit_s, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="polaris-guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while time.monotonic() - self.moved < self._limit_s:
            if self._ended.wait(1.0):
                return
        host, minutes = os.environ.get("MASTER_ADDR", "the first machine"), self._limit_s / 60
        who = speaker(os.environ.get("RANK", "0"), "in sampling")
        print(f"{who}: nothing was heard of {host} for {minutes:.1f} minutes; this engine ends", file=sys.stderr, flush=True)
        os._exit(1)


def _attend(process: Process, lives: Lives, life: int, stop: StopRequest, guard: _Guard, silence_s: float, start_s: float) -> int | str:
    """The exit status with which the rank ends, or why a new life is to begin."""
    told = False
    while True:
        status = process.poll()
        guard.moved = time.monotonic()
        if stop.number and not told and status is None:
            told = True
            process.send_signal(stop.number)
        try:
            if status is not None:
                if lives.over:
                    return _last(status)
                final = status in _EXPECTED or (not life and (status == _REFUSED or not process.begun))
                return _positive(status) if final else _in_words(status)
            if (reason := lives.reason(life)) is not None:
                return reason
            if lives.over:
                return _last(process.wait(_FAREWELL_S))
        except RuntimeError:  # the store is gone, and so are the trainers
            return _positive(status if status is not None else process.wait(_FAREWELL_S) or 0)
        limit = silence_s if process.begun else start_s
        if time.monotonic() - process.moved > limit:
            return f"did not move for {limit / 60:g} minutes at: {process.place}"
        time.sleep(_POLL_S)


def _outlast_trainers(lives: Lives, guard: _Guard) -> None:
    """Wait until the trainers are done, which may still be saving: torchrun ends all ranks soon after one has failed."""
    with suppress(RuntimeError):  # the store is gone with them
        while not lives.over:
            guard.moved = time.monotonic()
            time.sleep(_POLL_S)


def _last(status: int | None) -> int:
    """The status of a rank whose engine nobody needs any more. No failure: torchrun would end the trainers, which may be at work still."""
    return status if status is not None and status in _EXPECTED else 0


def _positive(status: int) -> int:
    return status if status >= 0 else 128 - status


def _in_words(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}: see its message"
