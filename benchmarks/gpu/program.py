"""Other programs that a part runs: their records as they come, a request to stop in time, and an end of all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu.journal import read

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 60
"""So long a program may take from the request to stop to its end: it saves in between."""


Family = dict[int, str]
"""Processes and their births."""


class ProgramFailed(Exception):
    """A program ended with another status than 0."""


def polaris(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "polaris.cli", *map(str, arguments)]


def torchrun(*arguments: object) -> list[str]:
    """The training program on one rank."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "polaris.train"]
    return [sys.executable, *launch, *map(str, arguments)]


def follow(command: Sequence[str], metrics: Path, end: float) -> Iterator[dict[str, Any]]:
    """Run the command and yield each record that it appends to `metrics`. At `end` (seconds since the epoch) it is asked to stop.

    Raises:
        ProgramFailed: the command failed, or did not stop when asked.
    """
    known = len(read(metrics))
    environment = os.environ | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_S)}
    program, asked = subprocess.Popen(command, cwd=ROOT, env=environment), False
    family: Family = {}
    try:
        running = True
        while running:
            running = program.poll() is None
            family |= family_of(program.pid)  # torchrun gives its ranks sessions of their own
            new = read(metrics)
            known = min(known, len(new))  # less: a fresh run, or one that was cut back to its checkpoint
            yield from new[known:]
            known = len(new)
            if running and time.time() > end and not asked:
                asked = True
                program.send_signal(signal.SIGTERM)
            if running and time.time() > end + STOP_S:
                raise ProgramFailed(f"did not stop within {STOP_S} s")
            time.sleep(0.2)
    finally:
        end_all(program, family)
    # 1: where our entry point is not installed, torchrun reports the signal as its own failure
    if program.returncode and not (asked and program.returncode in (1, 128 + signal.SIGTERM, -signal.SIGTERM)):
        raise ProgramFailed(f"ended with status {program.returncode}; its words are in the log")


def call(command: Sequence[str], seconds: float) -> None:
    """Run the command to its end.

    Raises:
        ProgramFailed: it failed, or took longer.
    """
    program = subprocess.Popen(command, cwd=ROOT)
    try:
        status = program.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        raise ProgramFailed(f"took longer than {seconds:.0f} s") from None
    finally:
        end_all(program)
    if status:
        raise ProgramFailed(f"ended with status {status}; its words are in the log")


def end_all(program: subprocess.Popen[Any], family: Family | None = None) -> None:
    """Kill the program, all that descends from it now, and those of its `family` that have outlived their parents."""
    family = (family or {}) | family_of(program.pid)
    if program.poll() is None:
        program.kill()
    end(family)
    program.wait()


def end(family: Family) -> None:
    """Kill the processes of a family, and what descends from them, but never this one."""
    for process, born in family.items():
        for one in (process, *descendants(process)) if birth(process) == born else ():
            if one != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)


def family_of(process: int) -> Family:
    """What descends from the process now, each with its birth."""
    return {child: born for child in descendants(process) if (born := birth(child)) is not None}


def birth(process: int) -> str | None:
    """When the process began, in ticks since the machine did; None if it has ended. A number alone may come to belong to another one."""
    with suppress(OSError):
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    return None


def descendants(process: int) -> list[int]:
    """Children and their children, as /proc has them now."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = list(parents.get(process, []))
    for child in found:
        found += parents.get(child, [])
    return found
