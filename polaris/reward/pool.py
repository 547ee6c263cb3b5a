"""Grading in processes that can be killed.

Policies find answers that keep a computer-algebra system busy for ever. No signal or thread can interrupt it, but its process can
be killed and replaced. Workers are fresh interpreters that exchange JSON lines: nothing is pickled, and no process with torch or
vLLM is forked.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

import polaris
from polaris.reward.grade import Mode, decide
from polaris.types import CRASHED, TIMEOUT, GroundTruth, Verdict

START_LIMIT_S = 120.0


class GraderPool:
    """`workers` grading processes (None: `default_workers()`), each at one answer at a time.

    `grade` may be called from any number of threads at once, and from asyncio as `await asyncio.to_thread(pool.grade, items)`.
    If an answer takes longer than `timeout_s` after its worker begins it, the worker is killed (counted in `num_killed`) and the
    answer is ungradable("timeout"); an answer that crashes its worker is ungradable("crashed"). Processes start at once, in the
    background. `grade` raises `RuntimeError` with the process's last output if a worker cannot start.
    """

    def __init__(self, workers: int | None, timeout_s: float, require_thinking: bool, mode: Mode = "strict") -> None:
        workers = default_workers() if workers is None else workers
        self.num_killed = 0
        self._require_thinking = require_thinking
        self._mode: Mode = mode
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grader")
        self._workers = [_Worker(timeout_s) for _ in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> GraderPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def grade(self, items: Sequence[tuple[str, GroundTruth]]) -> list[Verdict]:
        """Verdicts on (response, ground truth) pairs, in their order; equal pairs of answer and ground truth are graded once."""
        asked: dict[str, Future[Verdict]] = {}
        found: list[Verdict | Future[Verdict]] = []
        try:
            for response, truth in items:
                decided = decide(response, truth, require_thinking=self._require_thinking, mode=self._mode)
                if isinstance(decided, Verdict):
                    found.append(decided)
                    continue
                request = json.dumps({"answer": decided, "ground_truth": truth, "mode": self._mode})
                if request not in asked:
                    asked[request] = self._threads.submit(self._ask, request, decided)
                found.append(asked[request])
            return [one if isinstance(one, Verdict) else one.result() for one in found]
        finally:
            for future in asked.values():
                future.cancel()

    def close(self) -> None:
        """End all processes after the answers in progress; a `grade` waiting in another thread is cancelled."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _ask(self, request: str, answer: str) -> Verdict:
        worker = self._idle.get()
        try:
            reply = worker.ask(request)
            return Verdict(**json.loads(reply)) if reply else Verdict("ungradable", CRASHED, answer)
        except TimeoutError:
            with self._lock:
                self.num_killed += 1
            return Verdict("ungradable", TIMEOUT, answer)
        finally:
            self._idle.put(worker)


def default_workers() -> int:
    """Half of this process's CPU cores, shared with the machine's other ranks under torchrun; 1 to 16."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(1, len(os.sched_getaffinity(0)) // (2 * ranks)))


class _Worker:
    """One replaceable process."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
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
        return reply

    def end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()

    def _start(self) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "PYTHONPATH") if name in os.environ}
        package_root = str(Path(polaris.__file__).parents[1])
        python_path = os.pathsep.join(filter(None, (package_root, inherited.get("PYTHONPATH"))))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "polaris.reward.worker", str(math.ceil(self._timeout_s) + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env={**inherited, "PYTHONPATH": python_path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
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
            except OSError as error:  # no start, a broken pipe, or a `TimeoutError`
                words = self._last_words() or str(error)
            self._restart()
        raise RuntimeError(f"a grading process cannot start (`{sys.executable} -m polaris.reward.worker`): {words}")

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
        self._process.kill()
        self._process.wait()
        self._stderr.seek(0)
        return self._stderr.read()[-2000:].decode(errors="replace").strip() or f"exit status {self._process.returncode}"


BATCH = 512


def grade_in_batches(pool: GraderPool, items: Sequence[tuple[str, GroundTruth]], done: Callable[[int], None]) -> list[Verdict]:
    """Verdicts on (response, ground truth) pairs, in their order; `done` gets the number of verdicts after every batch."""
    verdicts: list[Verdict] = []
    for start in range(0, len(items), BATCH):
        verdicts += pool.grade(items[start : start + BATCH])
        done(len(verdicts))
    return verdicts
