"""A process that is started again where it dies, by real processes; and those that are not."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch.distributed as dist

from polaris.distributed.supervise import Lives, Process, say_over, supervise
from polaris.stop import StopRequest

PROGRAM = """
import os, signal, sys, time
from polaris.distributed.supervise import Pulse, end_with_parent
end_with_parent(int(sys.argv[2]))
pulse, life = Pulse(int(sys.argv[1])), sys.stdin.read()
open(os.environ["SEEN"], "a").write(f"{life} {os.getpid()}\\n")
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
exec(os.environ["BODY"])
"""


@pytest.fixture
def lives(tmp_path, monkeypatch):
    """Runs a body in each life; the reasons why lives ended, the status, and the process ids."""
    (tmp_path / "sampled.py").write_text(PROGRAM)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    store = dist.HashStore()

    def run(body, meanwhile=lambda store: None, stop=None, silence=60.0):
        monkeypatch.setenv("BODY", body)
        found = Lives(store, 0)
        threading.Thread(target=meanwhile, args=(store,), daemon=True).start()
        status = supervise(lambda life: Process("sampled", str(life).encode()), found, stop or StopRequest(), silence, 60.0)
        reasons = [found.reason(life) for life in range(5)]
        pids = [int(line.split()[1]) for line in (tmp_path / "seen").read_text().splitlines()]
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert "polaris-guard" not in [thread.name for thread in threading.enumerate()], "it would end this process"
        return status, [reason for reason in reasons if reason], len(pids)

    return run


def test_it_is_started_again_until_it_ends(lives):
    body = "pulse.beat('here')\nif life != '2': os.kill(os.getpid(), 9 if life == '0' else 11)"
    assert lives(body) == (0, ["was killed by SIGKILL", "was killed by SIGSEGV"], 3)


@pytest.mark.parametrize("status", [2, 130])
def test_a_refusal_and_a_stop_are_the_end(lives, status):
    assert lives(f"pulse.beat('here')\nsys.exit({status})") == (status, [], 1)


def test_a_refusal_after_a_restart_is_a_loss(lives):
    """The settings were good enough for the first life: the device's memory may not be free yet."""
    body = "pulse.beat('here')\nif life == '0': os.kill(os.getpid(), 9)\nif life == '1': sys.exit(2)"
    assert lives(body) == (0, ["was killed by SIGKILL", "ended with status 2: see its message"], 3)


def test_one_that_never_came_up_is_not_started_again(lives):
    assert lives("sys.exit(1)") == (1, [], 1)
    assert lives("os.kill(os.getpid(), 9)")[0] == 137


def test_one_that_stands_still_is_killed_where_it_said_last(lives):
    body = "pulse.beat('the third tensor')\nif life == '0': os.kill(os.getpid(), signal.SIGSTOP)"
    status, reasons, _ = lives(body, silence=0.6)
    assert (status, reasons) == (0, ["did not move for 0.01 minutes at: the third tensor"])


def test_others_may_end_a_life_and_its_own_processes_with_it(lives):
    body = "import subprocess\nif life == '0':\n  subprocess.Popen(['sleep', '977'])\n  pulse.beat('x')\n  time.sleep(60)"

    def dismiss(store):
        time.sleep(1.5)
        Lives(store, 0).end(0, "serves other weights")

    assert lives(body, dismiss) == (0, ["serves other weights"], 2)
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"977" in _command(pid)]


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_a_signal_is_passed_on_once(lives):
    stop = StopRequest()
    body = "pulse.beat('x')\ntime.sleep(60)"

    def signalled(store):
        time.sleep(1.5)
        stop.number = signal.SIGTERM

    assert lives(body, signalled, stop) == (143, [], 1)


def test_a_stop_starts_nothing_again(lives):
    """A process that has just been started does not handle the signal yet, and would die of it again and again."""
    stop = StopRequest()
    body = "pulse.beat('x')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1.5)\nos.kill(os.getpid(), 9)"

    def signalled(store):
        while not os.path.exists(os.environ["SEEN"]):
            time.sleep(0.01)
        time.sleep(0.5)
        stop.number = signal.SIGTERM
        time.sleep(4)
        say_over(store)

    assert lives(body, signalled, stop) == (143, ["was killed by SIGKILL"], 1)


def test_when_the_trainers_are_done_nothing_begins_again(lives):
    """Nor does it fail the job, whose trainers may be at work on the final evaluation."""
    assert lives("pulse.beat('x')\ntime.sleep(1)\nos.kill(os.getpid(), 9)", say_over) == (0, [], 1)


def test_without_its_parent_it_ends(tmp_path):
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DYING!r}, sys.argv[1]]); open(sys.argv[1]).read()"
    os.mkfifo(tmp_path / "begun")
    subprocess.run([sys.executable, "-c", start, tmp_path / "begun"], check=True, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


DYING = """
import os, pathlib, sys, time
from polaris.distributed.supervise import end_with_parent
end_with_parent(os.getppid())
begun = pathlib.Path(sys.argv[1])
(begun.parent / "pid").write_text(str(os.getpid()))
begun.write_text("")
time.sleep(60)
"""
