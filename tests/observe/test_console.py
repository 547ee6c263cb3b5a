import os
import pty
import signal
import subprocess
import sys

import pytest

from polaris.observe import console
from polaris.observe.phrases import count, duration
from polaris.sampling.clock import Clock

RUN = """
import sys
from pathlib import Path
from polaris.observe import console
console.SECONDS_BETWEEN_LINES = 0.0
shown = console.Console(sys.argv[1] == "rank0", 3)
shown.banner({"model": "tiny [bold]x[/bold]", "run": "runs/x"})
with shown.phase("rollout"):
    for finished in range(3):
        shown.progress(finished, 2, 1500 * finished)
shown.step({"step": 0, "eval/accuracy": 0.25})
shown.step({"step": 1, "reward/mean": 0.5, "optimizer/grad_norm": None, "seconds/step": 90.0})
shown.note("evil \\x1b[2J\\rforged")
shown.finish({"steps": 1, "minutes": 1.5, "base_accuracy": 0.25, "final_accuracy": 0.5, "final_step": 1}, Path("report.html"))
"""

INTERRUPTED = """
import signal, time
from polaris.observe.console import Console
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with SIGINT ignored
with Console(True, 3).phase("rollout"):
    print("READY", flush=True)
    time.sleep(30)
"""


def run(rank: str) -> str:
    done = subprocess.run([sys.executable, "-c", RUN, rank], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_without_a_terminal_every_line_is_plain():
    text = run("rank0")
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    assert "tiny [bold]x[/bold]" in text
    assert "step 1/3 rollout  1/2 groups, 1.5k tokens" in text
    assert "step 0/3  eval 25.0%" in text
    assert "step 1/3  reward 0.500  grad nan  eta 3m00s" in text
    assert "accuracy 25.0% -> 50.0%; report report.html" in text


def test_other_ranks_are_silent():
    assert run("rank1") == ""


def test_progress_without_a_terminal_is_rare():
    code = RUN.replace("console.SECONDS_BETWEEN_LINES = 0.0", "")
    text = subprocess.run([sys.executable, "-c", code, "rank0"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "groups," not in text


def test_ctrl_c_gives_the_cursor_back():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while b"READY" not in seen:
        seen += os.read(ours, 4096)
    child.send_signal(signal.SIGINT)
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # the other end of a pseudo-terminal was closed
        pass
    child.wait(timeout=30)
    os.close(ours)
    assert b"KeyboardInterrupt" in seen
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") > -1


def test_a_resumed_run_counts_on_from_its_step(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    shown = console.Console(True, 50)
    shown.resumed(40)
    with shown.phase("rollout"):
        shown.progress(1, 2, 1500)
    shown.step({"step": 41, "seconds/step": 10.0})
    with shown.phase("rollout"):
        shown.progress(1, 2, 1500)
    before, done, after = capsys.readouterr().out.splitlines()
    assert before.startswith("step 41/50 rollout  1/2 groups")
    assert done == "step 41/50    eta 1m30s"
    assert after.startswith("step 42/50 rollout")
    assert "run ~1m30s left" in after


def test_what_stands_between_steps_is_no_step(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    shown = console.Console(True, 3)
    shown.resumed(3)
    clock = Clock(shown)
    with clock.phase("eval", in_step=False):
        shown.progress(1, 2, 1500)
    with clock.phase("rollout"):
        shown.progress(1, 2, 1500)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["eval", "step 4/3 rollout"]


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2s"), (59.99, "1m00s"), (185, "3m05s"), (7620, "2h07m"), (273600, "3d04h")])
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (987, "987"), (999.7, "1k"), (12345, "12.3k"), (4.5e6, "4.5M"), (1.2e9, "1.2G")])
def test_count(number, text):
    assert count(number) == text
