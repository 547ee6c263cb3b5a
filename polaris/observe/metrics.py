"""`metrics.jsonl`, the run's source of truth: one JSON object per line, `step` first."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polaris.errors import Refused
from polaris.files import sync_folder, write_atomically

DETERMINISTIC_EXCLUDES = ("seconds/", "throughput/", "memory/")
"""Prefixes of the keys that depend on the clock or the machine; every other value repeats when the run is repeated."""


def deterministic(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record that two runs of one configuration share."""
    return {key: value for key, value in record.items() if not key.startswith(DETERMINISTIC_EXCLUDES)}


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, oldest first; a torn last line is left out and a missing file has none.

    Raises `ValueError` if any other line is not a JSON object.
    """
    return [record for _, record in _parse(path)]


class MetricsFile:
    """Appends to `path`. After a crash call `truncate_after` before the first `append`: it removes a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, record: Mapping[str, float | int | str | None]) -> None:
        """Write one record, durable when this returns; NaN and infinity become null."""
        assert "step" in record, "a metrics record needs its step"
        ordered = {"step": record["step"], **record}
        line = json.dumps({key: _finite(value) for key, value in ordered.items()}, allow_nan=False)
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)

    def truncate_after(self, step: int) -> None:
        """Drop the records of steps later than `step` and a torn last line."""
        if self.path.exists():
            kept = [line + b"\n" for line, record in _parse(self.path) if record["step"] <= step]
            write_atomically(self.path, b"".join(kept))


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise Refused(f"{path}:{number} is not JSON ({error}); remove the line or restore the file") from error
        if not isinstance(record, dict):
            raise Refused(f"{path}:{number} is not a JSON object; remove the line or restore the file")
        parsed.append((line, record))
    return parsed
