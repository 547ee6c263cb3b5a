"""A part is a list of figures, each taken alone: one that fails, does not fit or has no time left is a line, and the rest goes on."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.journal import Journal, Line, Status
from benchmarks.gpu.run import BROKEN
from benchmarks.kernels.contest import free
from benchmarks.kernels.peers import Unavailable

_SMALL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`seconds` is what it may take at most on a GPU; with less time left than `least`, or than that, it is skipped by name.

    A figure of an `operation` is taken only if the operation's own tests are green in results.jsonl.
    """

    name: str
    seconds: float
    run: Callable[[], Iterable[Line]]
    operation: str = ""
    least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What surrounds a part: where its lines go, when it must be done, whether this is a dry run at the smallest sizes."""

    journal: Journal
    end: float
    small: bool

    @property
    def folder(self) -> Path:
        return self.journal.path.parent

    def left(self) -> float:
        return self.end - time.time()


def is_small() -> bool:
    """A dry run: `SMALL=1`, or no GPU."""
    return os.environ.get("SMALL", "0") == "1" or not torch.cuda.is_available()


def take(figures: Iterable[Figure], call: Call) -> None:
    """Take every figure that has no line yet, in order."""
    known = {line["name"] for line in call.journal.lines()}
    for figure in figures:
        if figure.name in known:
            continue
        least = figure.seconds if figure.least is None else figure.least
        needed = min(least, _SMALL_S) if call.small else least
        if call.left() < needed:
            reason = f"out of time: it needs {needed:.0f} s, {max(0.0, call.left()):.0f} s are left"
            call.journal.append(Line(name=figure.name, status="not run", reason=reason))
        elif figure.operation and (why := red(figure.operation, call.journal)):
            call.journal.append(Line(name=figure.name, status="blocked", reason=why))
        else:
            _take(figure, call.journal)


def _take(figure: Figure, journal: Journal) -> None:
    journal.append(Line(name=figure.name, status="started", values={"at most s": figure.seconds}))
    broken = False
    try:
        for line in figure.run():
            journal.append(line)
    except Exception as error:  # one figure's failure is a line of its own, and the rest goes on
        status, reason = verdict(error)
        broken = status == "failed" and "CUDA error" in reason
        journal.append(Line(name=figure.name, status=status, reason=reason))
    if broken:
        sys.exit(BROKEN)
    free()


def verdict(error: Exception) -> tuple[Status, str]:
    """What a figure's exception says about it; what nobody foresaw goes to the log as a whole."""
    text = str(error).partition("\n")[0]
    if isinstance(error, Unavailable):
        return "not run", text
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "out of memory", text[:200]
    traceback.print_exception(error)
    return "failed", f"{type(error).__name__}: {text}"[:500]


def suite_name(operation: str) -> str:
    """Name of the line that says whether an operation's own tests pass."""
    return f"tests of {operation}"


def tested(operation: str, journal: Journal) -> str | None:
    """What the operation's own tests came to in this call: nothing if they are green, else what is red; None if they have not ended."""
    verdicts = [line for line in journal.lines_of_call() if line["name"] == suite_name(operation) and line["status"] in ("ok", "failed")]
    return None if not verdicts else "" if verdicts[-1]["status"] == "ok" else verdicts[-1]["reason"]


def red(operation: str, journal: Journal) -> str:
    """Why figures of the operation are not to be taken; empty if its own tests are green."""
    why = tested(operation, journal)
    if why is None:
        return f"the tests of {operation} have not run"
    return why and f"the tests of {operation} are red: {why}"
