"""One grading process by itself: its protocol, its limits, and its end when nobody is left to kill it."""

import json
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from polaris.reward.worker import MEMORY_BYTES

COMMAND = [sys.executable, "-m", "polaris.reward.worker", "2"]


def request(answer, truth, mode="strict"):
    return json.dumps({"answer": answer, "ground_truth": truth, "mode": mode}).encode() + b"\n"


# Legal text, and gold answers, whose values take minutes.
HANG = request("\\sum_{k=1}^{9999}\\sin(k^2)", "\\sum_{k=1}^{9999}\\cos(k^2)")


@contextmanager
def ready(command=COMMAND, **options):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options) as worker:
        assert worker.stdout.readline() == b"ready\n"
        try:
            yield worker
        finally:
            worker.kill()


def ask(worker, line):
    worker.stdin.write(line)
    assert worker.stdout.readline() == b"begun\n"
    return json.loads(worker.stdout.readline())


def test_a_verdict_for_every_line():
    lines = [
        (request("1+x", "x+1"), "correct"),
        (request("1+x", ["y", "x+1"]), "correct"),
        (request("1+x", ["y", 2.5]), "wrong"),
        (request("\\frac{x}{2}", "0.5x", "deepscaler"), "correct"),
    ] * 2
    with ready() as worker:
        assert [ask(worker, line)["kind"] for line, _ in lines] == [kind for _, kind in lines]


def test_memory_cores_and_seconds_are_limited():
    with ready() as worker:
        ask(worker, request("1+x", "x+1"))
        assert resource.prlimit(worker.pid, resource.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
        assert resource.prlimit(worker.pid, resource.RLIMIT_CORE) == (0, 0)
        assert 2 <= resource.prlimit(worker.pid, resource.RLIMIT_CPU)[0] < 30


@pytest.mark.parametrize("line", [b"", HANG])
def test_an_orphan_ends_by_itself(line):
    with ready() as worker:
        worker.stdin.write(line)
        worker.stdin.close()
        assert worker.wait(timeout=20) == (-signal.SIGALRM if line else 0)


def test_seconds_of_cpu_end_it_where_the_alarm_does_not():
    def deaf():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])

    with ready(preexec_fn=deaf) as worker:
        worker.stdin.write(HANG)
        assert worker.wait(timeout=60) == -signal.SIGXCPU


def test_the_limit_of_cpu_moves_with_every_answer():
    """Many cheap answers may take more seconds together than one may."""
    with ready() as worker:
        seconds = Path(f"/proc/{worker.pid}/stat")
        answers, deadline = 0, time.monotonic() + 120
        while sum(map(int, seconds.read_text(encoding="ascii").split()[13:15])) < 500:
            answers += 1
            assert ask(worker, request(f"{answers}+x", f"x+{answers}"))["kind"] == "correct"
            assert time.monotonic() < deadline


def test_a_hard_limit_of_the_users_shell_is_kept():
    with ready(["bash", "-c", 'ulimit -t 60; exec "$@"', "bash", *COMMAND]) as worker:
        assert ask(worker, request("1+x", "x+1"))["kind"] == "correct"
        assert resource.prlimit(worker.pid, resource.RLIMIT_CPU)[1] == 60


# Real algebra stays below 100 MiB on everything that was tried, so the parser is told to ask for more.
HUNGRY = """
import polaris.reward.symbolic as symbolic, polaris.reward.worker as worker
parse = symbolic.latex2sympy
symbolic.latex2sympy = lambda text, **options: bytearray(2 * worker.MEMORY_BYTES) if "M" in text else parse(text, **options)
worker.main()
"""


def test_an_answer_that_wants_more_memory_than_the_limit_ends_it():
    with ready([sys.executable, "-c", HUNGRY, "20"]) as worker:
        assert ask(worker, request("1+x", "x+1"))["kind"] == "correct"
        worker.stdin.write(request("M+1", "1+x"))
        assert worker.wait(timeout=20) == 1
        assert b"MemoryError" in worker.stderr.read()
