"""What rank 0 tells its user: a live line within a step on a terminal, plain single lines anywhere else."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from polaris.observe.phrases import clean, count, duration, step_line, summary_line

SECONDS_BETWEEN_LINES = 10.0
"""Shortest time between two progress lines where there is no terminal."""
_STEPS_FOR_ESTIMATE = 20


class Console:
    """Prints nothing unless `enabled` (rank 0). `total_steps` is the last step of the run."""

    def __init__(self, enabled: bool, total_steps: int) -> None:
        self._enabled = enabled
        self._total_steps = total_steps
        on_terminal = enabled and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._rich = RichConsole(highlight=False, soft_wrap=True) if on_terminal else None
        self._live: Progress | None = None
        self._phases: list[tuple[str, float]] = []
        self._in_step = True
        self._last_line = 0.0
        self._steps_done = 0
        self._step_start = time.monotonic()
        self._step_seconds: list[float] = []

    def banner(self, facts: Mapping[str, str]) -> None:
        """Names and values of the run, one per line."""
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            self._print(f"{name:<{width}}", f"  {value}")

    def resumed(self, step: int) -> None:
        """The run goes on after `step`, so that the step to come is the one after it."""
        self._steps_done = step

    @contextmanager
    def phase(self, name: str, *, in_step: bool = True) -> Iterator[None]:
        """Say what the step, or the run between its steps, is doing until the block ends, however it ends; phases may nest."""
        self._phases.append((name, time.monotonic()))
        self._in_step = in_step
        self._last_line = time.monotonic()
        try:
            if self._rich is not None and self._live is None:
                self._live = _live_line(self._rich, self._title(name))
                self._live.start()
            self._show(name, 0, None, "")
            yield
        finally:
            self._phases.pop()
            if self._live is not None and not self._phases:
                self._live.stop()
                self._live = None

    def progress(self, finished: int, total: int, tokens: int) -> None:
        """Groups that are complete of `total` in this phase, and the response tokens so far."""
        now = time.monotonic()
        name, start = self._phases[-1] if self._phases else ("", self._step_start)
        facts = f"{finished}/{total} groups, {count(tokens)} tokens{self._time_left(now, now - start, finished, total)}"
        if self._live is not None:
            self._show(name, finished, total, facts)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print(self._title(name), f"  {facts}, {duration(now - start)} elapsed")

    def step(self, record: Mapping[str, Any]) -> None:
        """One line for a record of `metrics.jsonl`."""
        self._steps_done = record["step"]
        self._step_start = time.monotonic()
        if record.get("seconds/step") is not None:
            self._step_seconds = [*self._step_seconds, record["seconds/step"]][-_STEPS_FOR_ESTIMATE:]
        title, facts = step_line(record, self._total_steps)
        left = self._total_steps - self._steps_done
        eta = f"  eta {duration(self._usual_step() * left)}" if self._step_seconds and left > 0 else ""
        self._print(title, f"  {facts}{eta}")

    def note(self, text: str) -> None:
        self._print("", text)

    def warning(self, text: str) -> None:
        """The first line and, further in, those below it, such as a traceback's."""
        first, *more = text.splitlines() or [""]
        self._print("warning:", f" {first}", style="bold yellow")
        for line in more:
            self._print("", f"    {line}")

    def finish(self, summary: Mapping[str, Any], report: Path, stopped: bool = False) -> None:
        """The outcome: `summary` is that of `polaris.observe.report`."""
        again = "; the same command goes on from here" if stopped else ""
        self._print("stopped:" if stopped else "done:", f" {summary_line(summary)}; report {report}{again}", style="bold green")

    def _usual_step(self) -> float:
        return statistics.median(self._step_seconds)

    def _time_left(self, now: float, phase_elapsed: float, finished: int, total: int) -> str:
        """In the step: the phase at its present pace, or the rest of a usual step if that is longer. In the run: usual steps."""
        step_left = phase_elapsed * (total - finished) / finished if finished else 0.0
        if not self._in_step:
            return f", ~{duration(step_left)} left" if finished else ""
        if not self._step_seconds:
            return f", step ~{duration(step_left)} left" if finished else ""
        step_left = max(step_left, self._usual_step() - (now - self._step_start))
        run_left = step_left + self._usual_step() * max(0, self._total_steps - self._steps_done - 1)
        return f", step ~{duration(step_left)} left, run ~{duration(run_left)} left"

    def _show(self, name: str, finished: int, total: int | None, facts: str) -> None:
        if self._live is not None:
            self._live.update(self._live.task_ids[0], description=self._title(name), completed=finished, total=total, facts=facts)

    def _title(self, phase: str) -> str:
        return f"step {self._steps_done + 1}/{self._total_steps} {phase}" if self._in_step else phase

    def _print(self, title: str, text: str, style: str = "bold") -> None:
        if self._rich is not None:
            self._rich.print(Text.assemble((clean(title), style), clean(text)))
        elif self._enabled:
            print(clean(title + text), flush=True)


def _live_line(console: RichConsole, title: str) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeElapsedColumn(),
    )
    # Output is not redirected through rich: a forked worker that prints would wait for ever on a lock of the refresh thread.
    live = Progress(*columns, console=console, transient=True, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False)
    live.add_task(title, total=None, facts="")
    return live
