"""Processes that can be killed.

Policies find answers that keep a computer-algebra system busy for ever, and a user's reward may hang or crash. No signal or thread can
interrupt it, but its process can be killed and replaced. Workers are fresh interpreters that exchange JSON lines: nothing is pickled, and
no process with torch or vLLM is forked.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from polaris.errors import RunFailed
from polaris.types import CRASHED, TIMEOUT

START_LIMIT_S = 120.0
_MOST_STDERR = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """`python -m module SECONDS *arguments`, SECONDS being the limit for one request. With `own`, a user's code runs in it: it gets the
    whole environment and Python's path. `hint` is the remedy if it cannot start."""

    module: str
    arguments: tuple[str, ...] = ()
    own: bool = False
    hint: str = ""

    def environment(self) -> dict[str, str]:
        kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "PYTHONPATH")
        inherited = dict(os.environ) if self.own else {name: os.environ[name] for name in kept if name in os.environ}
        places = [str(Path(__file__).parents[2]), inherited.get("PYTHONPATH")]
        places += [place or os.getcwd() for place in sys.path] if self.own else []
        python_path = os.pathsep.join(dict.fromkeys(filter(None, places)))
        return {**inherited, "PYTHONPATH": python_path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


class WorkerPool:
    """`workers` processes (None: `default_workers()`) of one program, each at one request at a time.

    Requests may come from any number of threads at once. If one takes longer than `timeout_s` after its worker begins it, the worker is
    killed (counted in `num_killed`) and replaced. Processes start at once, in the background.
    """

    def __init__(self, program: Program, workers: int | None, timeout_s: float) -> None:
        workers = default_workers() if workers is None else workers
        self.num_killed = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grader")
        self._workers = [_Worker(program, timeout_s) for _ in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, request: str) -> Future[bytes | str]:
        """The reply to a line of JSON, in the future: bytes; or as text why there is none, `TIMEOUT` or `CRASHED`.

        Its `result` raises `RunFailed` with the process's last output if a worker cannot start.
        """
        return self._threads.submit(self._ask, request)

    def close(self) -> None:
        """End all processes after the requests in progress; whoever waits for a later one in another thread is cancelled."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _ask(self, request: str) -> bytes | str:
        worker = self._idle.get()
        try:
            return worker.ask(request) or CRASHED
        except TimeoutError:
            with self._lock:
                self.num_killed += 1
            return TIMEOUT
        finally:
            self._idle.put(worker)


def default_workers() -> int:
    """Half of this process's CPU cores, shared with the machine's other ranks under torchrun; 1 to 16."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(1, len(os.sched_getaffinity(0)) // (2 * ranks)))


class _Worker:
    """One replaceable process."""

    def __init__(self, program: Program, timeout_s: float) -> None:
        self._program, self._timeout_s = program, timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def ask(self, request: str) -> bytes:
        """The reply; empty if the process died. Raises `TimeoutError` if it took too long. Either way the process is replaced."""
        self._hand_over(request.encode() + b"\n")
        reply = b""
        try:
            reply = self._read_line(self._timeout_s)
        finally:
            if not reply:
                self._restart()
        if os.fstat(self._stderr.fileno()).st_size > _MOST_STDERR:  # a chatty reward must not fill the disk
            os.ftruncate(self._stderr.fileno(), 0)
        return reply

    def end(self) -> None:
        if self._process is None:
            return
        self._kill()
        self._process = None
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()

    def _start(self) -> None:
        self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._program.module, str(math.ceil(self._timeout_s) + 1), *self._program.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=self._program.environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._ready = False
        self._unread = b""

    def _restart(self) -> None:
        """Replace the process; if the system lacks memory or files now, the next line tries again."""
        self.end()
        with contextlib.suppress(OSError):
            self._start()

    def _hand_over(self, line: bytes) -> None:
        """Return when a process has begun the line; a process that was killed while idle is replaced silently."""
        words = ""
        for _ in range(2):
            try:
                if self._begin(line):
                    return
                words = self._last_words()
            except TimeoutError:
                words = f"not ready after {START_LIMIT_S:g} s. {self._last_words()}"
            except OSError as error:  # no start, or a broken pipe
                words = self._last_words() or str(error)
            self._restart()
        raise RunFailed(f"a grading process cannot start (`{sys.executable} -m {self._program.module}`): {words}{self._program.hint}")

    def _begin(self, line: bytes) -> bool:
        """Whether the process was ready and confirmed that it begins; False if it is gone."""
        if self._process is None:
            self._start()
        self._ready = self._ready or bool(self._read_line(START_LIMIT_S))
        if not self._ready:
            return False
        self._stdin.write(line)
        return bool(self._read_line(START_LIMIT_S))

    def _read_line(self, limit_s: float) -> bytes:
        """The next line, empty if the process is gone; raises `TimeoutError` after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        while b"\n" not in self._unread:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            received = os.read(self._stdout.fileno(), 65536)
            if not received:
                return b""
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        """The process's last output, else its exit status; empty if there is neither."""
        if self._process is None:
            return ""
        self._kill()
        self._stderr.seek(0)
        return self._stderr.read()[-2000:].decode(errors="replace").strip() or f"exit status {self._process.returncode}"

    def _kill(self) -> None:
        """Kill the process, with those that a user's reward may have started."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
