"""A signal ends the process at once where nothing is to be saved, or when it is the second, whatever the main thread is busy with."""

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, os, signal, sys, threading
from polaris.run.session import run_session
from polaris.stop import StopRequest

def tell(number):
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

def busy():
    "For minutes the main thread is not in Python, as in a collective or a kernel."
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

stop = StopRequest()
stop.install()
{lines}
"""
SAID = "polaris: stopped; the same command goes on from what is on disk\n"


def run(*lines):
    return subprocess.run([sys.executable, "-c", SCRIPT.format(lines="\n".join(lines))], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["with stop.at_once():", "    tell(signal.SIGINT); busy()"], SAID),
        (["signal.raise_signal(signal.SIGINT)", "with stop.at_once():", "    busy()"], SAID),
        (["signal.raise_signal(signal.SIGTERM)", "tell(signal.SIGINT); busy()"], ""),
        (["sys.exit(run_session(lambda: (tell(signal.SIGINT), busy()), print))"], SAID),
    ],
    ids=["nothing to save", "asked before", "second signal", "while a command checks its input"],
)
def test_the_end_at_once(lines, said):
    result = run(*lines)
    assert result.returncode == 130
    assert result.stderr == said


def test_elsewhere_it_is_a_request():
    lines = ["with stop.at_once():", "    pass", "signal.raise_signal(signal.SIGTERM)", "print(stop.number, stop.requested())"]
    result = run(*lines)
    assert result.returncode == 0
    assert result.stdout == f"{int(signal.SIGTERM)} True\n"


@pytest.mark.parametrize(("pause", "status"), [(0, 0), (1.1, 143)])
def test_what_a_scheduler_tells_a_rank_and_torchrun_tells_it_again_is_one_request(monkeypatch, pause, status):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    result = run("import time", "signal.raise_signal(signal.SIGTERM)", f"time.sleep({pause})", "signal.raise_signal(signal.SIGTERM)")
    assert result.returncode == status


def test_a_signal_to_a_forked_child_is_not_the_parents():
    lines = ["child = os.fork()", "if child == 0:", "    signal.raise_signal(signal.SIGTERM), signal.raise_signal(signal.SIGUSR1)"]
    result = run("with stop.at_once():", *(f"    {line}" for line in [*lines, "os.waitpid(child, 0); print('lives')"]))
    assert result.returncode == 0
    assert result.stdout == "lives\n"


def test_a_signal_to_a_child_that_was_just_forked_is_not_heard_as_its_parents():
    lines = (
        "import time",
        "with stop.at_once():",
        "    for _ in range(100):",
        "        if not (child := os.fork()):",
        "            time.sleep(9); os._exit(0)",
        "        os.kill(child, signal.SIGTERM)",
        "        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143",
        "        time.sleep(0.002)",
    )
    assert run(*lines).returncode == 0
