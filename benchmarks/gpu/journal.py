"""results.jsonl: one line per figure, on disk the moment it is known, so that a kill at any second loses only the figure in flight.

A line holds `part`, `name`, `status`, `values` (a fact with its unit -> its number), `card`, `commit`, `call` (when the call began) and `s`
(seconds since then). Every status but "ok" comes with a `reason`. A contest of kernels adds `row`: operation, case and parameters.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE = "results.jsonl"
Status = Literal["started", "ok", "failed", "out of memory", "blocked", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is known about one figure."""

    name: str
    status: Status = "ok"
    values: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """Appends one part's lines. `CARD`, `COMMIT` and `STARTED` (seconds since the epoch) come from the environment, set by `run`."""

    def __init__(self, folder: Path, part: str) -> None:
        self.path, self.part = folder / FILE, part
        self._file = self.path.open("ab")
        if self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):  # the torn line of a kill
            self._file.write(b"\n")
        self._card, self._commit = os.environ.get("CARD", "unknown"), os.environ.get("COMMIT", "unknown")
        self.call = float(os.environ.get("STARTED", time.time()))

    def append(self, line: Line) -> None:
        """The line is on disk when this returns."""
        told = {key: value for key, value in (("values", dict(line.values)), ("reason", line.reason), ("row", dict(line.row))) if value}
        about = {"card": self._card, "commit": self._commit, "call": self.call, "s": round(time.time() - self.call, 1)}
        text = json.dumps({"part": self.part, "name": line.name, "status": line.status, **told, **about})
        self._file.write(text.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if line.status != "started":
            print(f"{self.part}: {line.name}: {shown(line)}", flush=True)

    def lines(self) -> list[dict[str, Any]]:
        """This part's lines of this call."""
        return [line for line in self.lines_of_call() if line["part"] == self.part]

    def lines_of_call(self) -> list[dict[str, Any]]:
        return [line for line in read(self.path) if line["call"] == self.call]


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file; the torn ones of kills are left out."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def shown(line: Line) -> str:
    values = ", ".join(f"{value:.4g} {fact}" if isinstance(value, float) else f"{value} {fact}" for fact, value in line.values.items())
    return " ".join(filter(None, ("" if line.status == "ok" else line.status, values, line.reason)))
