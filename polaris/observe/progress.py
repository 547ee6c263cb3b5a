"""How far a command is: a bar on a terminal, a plain line every ten seconds anywhere else; both on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from polaris.observe.console import SECONDS_BETWEEN_LINES


class Done(Protocol):
    """Takes how many are done, and what else to say."""

    def __call__(self, done: int, facts: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int, enabled: bool = True) -> Iterator[Done]:
    """Gives a function that takes how many of `total` are done; it says nothing unless `enabled`."""
    if not enabled:
        yield lambda done, facts="": None
    elif sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
        )
        # Engines start within it; why output is not redirected, `polaris.observe.console` says.
        with Progress(*columns, console=RichConsole(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            task = bar.add_task(title, total=total, facts="")
            yield lambda done, facts="": bar.update(task, completed=done, facts=facts)
    else:
        yield _lines(title, total)


def _lines(title: str, total: int) -> Done:
    last = time.monotonic()

    def show(done: int, facts: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{title} {done}/{total}  {facts}".rstrip(), file=sys.stderr, flush=True)

    return show
