"""Ends what a program has started once the program itself is gone: `python -m benchmarks.gpu.guard PID`, in a session of its own.

A call that is killed takes its process group along, but torchrun gives its ranks sessions of their own: they would hold the device in the
next call.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.gpu.program import ROOT, birth, end, family_of

_POLL_S = 0.3


def guard() -> None:
    """Guard this process from now on."""
    command = [sys.executable, "-m", "benchmarks.gpu.guard", str(os.getpid())]
    subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watch(guarded: int) -> None:
    began, family = birth(guarded), {}
    while began is not None and birth(guarded) == began:
        family |= family_of(guarded)
        time.sleep(_POLL_S)
    end(family)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
