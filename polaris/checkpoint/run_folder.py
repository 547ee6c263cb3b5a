"""One run = one folder; starting the same command again resumes it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from polaris.checkpoint import layout
from polaris.checkpoint.changes import Changes, RunProgress, find_changes
from polaris.checkpoint.sft_changes import find_sft_changes
from polaris.config.load import command_of, dump_config, read_dumped
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig, is_sft
from polaris.errors import Refused
from polaris.files import write_atomically

Part = Literal["export", "weights", "weights and optimizer"]

# Keeps locks alive: a lock ends with its object.
_HELD: list[FileLock] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The run and step that another run began with, and the part: its export, its weights, or its weights and optimizer."""

    run: str
    step: int
    part: Part

    def __str__(self) -> str:
        return f"{self.run}, step {self.step} ({self.part})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`config.json`: the configuration, the contents its names stood for, the run's origin, and its changes on resuming."""

    config: RunConfig | SftConfig
    content: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    history: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> str:
        facts = {"content": self.content, "origin": asdict(self.origin) if self.origin else None, "history": list(self.history)}
        return json.dumps(json.loads(dump_config(self.config)) | facts, indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Record:
        """The record that `to_json` wrote. Raises ValueError, KeyError or TypeError for other text."""
        values = dict(json.loads(text))
        content, origin, history = values.pop("content", {}), values.pop("origin", None), values.pop("history", ())
        if not is_sft(values):
            values["stage"]  # KeyError if missing: every record of a training has it
        return Record(
            config=read_dumped(values, "config.json"), content=content, origin=Origin(**origin) if origin else None, history=tuple(history)
        )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run; on rank 0, `changes` are the differences between this start and the one before."""

    path: Path
    changes: Changes = field(default=Changes(), compare=False)

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

    @property
    def begun(self) -> bool:
        """Whether a step, or the evaluation before the first step, has left results."""
        return self.newest_checkpoint() is not None or (self.metrics.is_file() and self.metrics.stat().st_size > 0)

    def newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint's folder."""
        steps = layout.complete_steps(self.checkpoints)
        return layout.step_folder(self.checkpoints, steps[-1]) if steps else None

    def record(self) -> Record | None:
        """The content of `config.json`; None if there is none. Raises `Refused` if it is damaged."""
        path = self.path / "config.json"
        try:
            return Record.from_json(path.read_text()) if path.is_file() else None
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"{path} is damaged ({error!r}); restore it, or set the run aside: the same command with --fresh") from None


def open_run(
    config: RunConfig | SftConfig, fresh: bool, main: bool, *, change: bool = False, content: Mapping[str, Any] | None = None
) -> RunFolder:
    """The run's folder, new or resumed; `main` (rank 0) checks it and locks it until `release` or the end of the process.

    `fresh` moves an existing run aside; nothing is ever deleted. `change` allows settings that alter later steps.
    `content` describes what the names in the configuration stand for now.

    Raises:
        ValueError: the folder holds a run that this configuration cannot resume, or another trainer uses it.
    """
    folder = RunFolder(config.folder)
    if not main:
        return folder
    _lock(folder)
    if fresh and any(folder.path.iterdir()):
        _set_aside(folder, config)
    return RunFolder(folder.path, check_changes(config, folder, change, content or {}))


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


def release() -> None:
    """Let others train in the folders that this process has opened."""
    while _HELD:
        _HELD.pop().release()


def _set_aside(folder: RunFolder, config: RunConfig | SftConfig) -> None:
    read = {"model.path": config.model.path, "data.path": config.data.path, "eval.path": config.eval.path}
    if isinstance(config, RunConfig):
        read |= {f"data.sets.{index}.path": one.path for index, one in enumerate(config.data.sets)}
    own = [name for name, path in read.items() if path is not None and Path(path).resolve().is_relative_to(folder.path.resolve())]
    if own:
        raise Refused(f"{own[0]} is in {folder.path}, which --fresh would set aside; give another --name, or copy it elsewhere first")
    aside = folder.path.with_name(f"{folder.path.name}-before-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.path.rename(aside)
    print(f"--fresh: the run that was in {folder.path} is now {aside}", flush=True)


def check_changes(config: RunConfig | SftConfig, folder: RunFolder, change: bool, content: Mapping[str, Any]) -> Changes:
    """Differences to the run in the folder, which is only read. Raises `Refused` for those that are never allowed, and without `change`
    for those that alter results."""
    if not folder.begun:
        return Changes()  # nothing is trained; each phase compares the settings of its own result
    record = folder.record()
    if record is None:
        return Changes()
    progress = RunProgress(
        step=max(layout.complete_steps(folder.checkpoints), default=0), closed=len(list(folder.stages.glob("stage-*.json")))
    )
    changes = _changes(record, config, progress, content)
    if changes.never:
        begin = "--from RUN" if isinstance(config, RunConfig) else "--model.path=RUN"
        raise Refused(
            f"{folder.path} cannot resume with this configuration: {'; '.join(changes.never)}. Go back to the old values, start a new run "
            f"from its weights ({begin} with another --name), or set it aside: the same command with --fresh"
        )
    if changes.altering and not change:
        raise Refused(
            f"{folder.path} was started with another configuration ({'; '.join(changes.altering)}), which alters the results of later "
            "steps; add --change to resume with the new values, or go back to the old ones, or give another --name"
        )
    return changes


def _changes(record: Record, config: RunConfig | SftConfig, progress: RunProgress, content: Mapping[str, Any]) -> Changes:
    before = record.config
    if isinstance(before, SftConfig) and isinstance(config, SftConfig):
        return find_sft_changes(before, config, progress.step, record.content, content)
    if isinstance(before, RunConfig) and isinstance(config, RunConfig):
        return find_changes(before, config, progress, record.content, content)
    raise Refused(f"{record.config.folder} is a run of `polaris {command_of(type(before))}`; give another --name")


def record_config(
    folder: RunFolder, config: RunConfig | SftConfig, content: Mapping[str, Any] | None = None, origin: Origin | None = None, step: int = 0
) -> None:
    """Write the resolved configuration into the run's folder, with what its names stand for and the changes made at `step`."""
    old, changes = folder.record() if folder.begun else None, folder.changes
    history = old.history if old is not None else ()
    if changes.altering or changes.free:
        entry = {"step": step, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        history = (*history, {**entry, "changes": list(changes.altering), "free": list(changes.free)})
    record = Record(config=config, content=dict(content or {}), origin=origin, history=history)
    write_atomically(folder.path / "config.json", record.to_json().encode())
