"""What trackers share: how a missing package is refused, where files may go, and which values are numbers."""

from __future__ import annotations

import importlib
import logging
import math
import os
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polaris.config.job import JobConfig
from polaris.errors import Refused
from polaris.observe.hook import Hook
from polaris.types import Group

logger = logging.getLogger("polaris.observe.trackers")


class Tracker(Hook):
    """Sends the numbers of every record on. What fails after the start is a warning: no tracker stops a run."""

    @abstractmethod
    def check(self, config: JobConfig) -> None:
        """Raise `Refused`, with the remedy, if it could not start; nothing is made."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers of a step or an evaluation."""

    def on_start(self, config: JobConfig, folder: Path, next_step: int) -> None:
        """As of a hook, for a run of `polaris train` or `polaris sft`."""

    def on_step(self, record: Mapping[str, Any], groups: Sequence[Group]) -> None:
        self.log(record["step"], numbers(record))

    def on_evaluate(self, record: Mapping[str, Any]) -> None:
        self.log(record["step"], numbers(record))


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record but its step."""
    return {key: value for key, value in record.items() if key != "step" and isinstance(value, int | float) and math.isfinite(value)}


def import_package(module: str, key: str, title: str, pip: str, without: str) -> Any:
    """The package behind a tracker. Raises `Refused`, naming `observe.<key>`, what to install, and what leaves the tracker out."""
    try:
        return importlib.import_module(module)
    except (ImportError, TypeError) as error:  # TensorBoard's protobuf fails with a TypeError
        raise Refused(f"observe.{key}: {title} does not start ({first_line(error)}); `pip install {pip}`, or {without}") from error


def require_writable(folder: Path, without: str) -> None:
    """Raise `Refused` if `folder`, inside the run's, could not be written; `without` leaves the tracker out."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    fault = f"{place} is {'not writable' if place.is_dir() else 'no folder'}"
    # Without the tracker too, the run itself would have no place there.
    remedy = without if place == folder else "choose another --root or --name"
    if not writable:
        raise Refused(f"{folder} cannot be written: {fault}; mend that, or {remedy}")


def kept_id(file: Path) -> str:
    """The id in a file, made where there is none: by it a resumed run goes on in the same curves."""
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return file.read_text().strip()


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return str(error).partition("\n")[0]
