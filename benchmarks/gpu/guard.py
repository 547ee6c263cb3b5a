"""Ends what a program has started once the program itself is gone: `python -m benchmarks.gpu.guard PID`, in a session of its own.

A call that is killed takes its process group along, but torchrun gives its ranks sessions of their own: they would hold the device in the
next call.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu.program import ROOT, descendants

_POLL_S = 0.3


def guard() -> None:
    """Guard this process from now on."""
    command = [sys.executable, "-m", "benchmarks.gpu.guard", str(os.getpid())]
    subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watch(guarded: int) -> None:
    began, family = birth(guarded), {}
    while began is not None and birth(guarded) == began:
        family |= {process: birth(process) for process in descendants(guarded)}
        time.sleep(_POLL_S)
    for process, born in family.items():
        for one in (process, *descendants(process)) if born is not None and birth(process) == born else ():
            if one != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)


def birth(process: int) -> str | None:
    """When the process began, in ticks since the machine did; None if it has ended. A number alone may come to belong to another one."""
    with suppress(OSError):
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    return None


if __name__ == "__main__":
    watch(int(sys.argv[1]))
