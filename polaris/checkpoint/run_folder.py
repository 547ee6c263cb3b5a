"""One run = one folder; starting the same command again resumes it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from polaris.checkpoint import layout
from polaris.config.load import changed_fields, dump_config
from polaris.config.schema import RunConfig
from polaris.errors import Refused
from polaris.observe.files import write_atomically

# Fields that a resumed run may change: they extend, watch or store the run but do not alter what a step computes.
_FREE = ("trainer.steps", "checkpoint.", "observe.", "eval.every", "final.", "sync.", "distributed.")

# A lock lives as long as its object.
_HELD: list[FileLock] = []


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def stages(self) -> Path:
        """Results of the recipe's phases."""
        return self.path / "stages"

    def newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint's folder."""
        steps = layout.complete_steps(self.checkpoints)
        return layout.step_folder(self.checkpoints, steps[-1]) if steps else None


def open_run(config: RunConfig, fresh: bool, main: bool) -> RunFolder:
    """The run's folder, new or to be resumed; `main` (rank 0) checks and locks it for as long as the process lives.

    `fresh` moves an existing run aside; nothing is ever deleted.

    Raises:
        ValueError: the folder holds a run of another configuration, or another trainer works in it.
    """
    folder = RunFolder(Path(config.root) / config.name)
    if main:
        _lock(folder)
        recorded = folder.path / "config.json"
        if fresh and any(folder.path.iterdir()):
            _set_aside(folder)
        if recorded.is_file():
            _check_same(config, recorded)
    return folder


def _lock(folder: RunFolder) -> None:
    lock = FileLock(folder.path.with_name(f".{folder.path.name}.lock"))
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise Refused(f"{folder.path} is in use by another trainer; wait for it, or start with another --name") from None
    except OSError as error:
        raise Refused(f"the run's folder {folder.path} cannot be written ({error}); choose another --root or --name") from None
    _HELD.append(lock)


def _set_aside(folder: RunFolder) -> None:
    aside = folder.path.with_name(f"{folder.path.name}-before-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.path.rename(aside)
    print(f"--fresh: the run that was in {folder.path} is now {aside}", flush=True)


def _check_same(config: RunConfig, recorded: Path) -> None:
    folder = RunFolder(recorded.parent)
    if folder.newest_checkpoint() is None and not (folder.metrics.is_file() and folder.metrics.stat().st_size):
        return  # nothing is trained; each phase's result has settings of its own, which are compared
    text = recorded.read_text()
    try:
        stages = json.loads(text)["stage"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{recorded} is damaged ({error!r}); restore it, or set the run aside with `polaris train --fresh`") from None
    if config.stage and not stages:
        raise Refused(f"{folder.path} was started without [[stage]] tables; extend it with trainer.steps, or give another --name")
    free = _FREE + _ahead(config, folder, stages)
    free += ("reward.require_thinking:",) if config.reward.require_thinking == "auto" else ()  # it stays as the run began
    changes = [change for change in changed_fields(config, text) if not change.startswith(free)]
    if changes:
        raise Refused(
            f"{recorded.parent} was started with another configuration ({'; '.join(changes)}); "
            "give another --name, or set it aside with `polaris train --fresh`"
        )


def _ahead(config: RunConfig, folder: RunFolder, recorded: list[dict[str, Any]]) -> tuple[str, ...]:
    """Names of the fields of stages that have not begun, appended ones included; and the probe's between two stages.

    `recorded` are the stages that the run was started with.
    """
    closed = len(list(folder.stages.glob("stage-*.json")))
    newest = max(layout.complete_steps(folder.checkpoints), default=0)
    between = newest <= sum(stage["steps"] for stage in recorded[:closed]) and closed > 0
    first = closed if between else min(closed + 1, len(recorded))
    stages = tuple(f"stage.{index}." for index in range(first, max(len(recorded), len(config.stage))))
    return (*stages, "probe.") if between else stages


def record_config(folder: RunFolder, config: RunConfig) -> None:
    """Write the resolved configuration beside the run."""
    write_atomically(folder.path / "config.json", dump_config(config).encode())
