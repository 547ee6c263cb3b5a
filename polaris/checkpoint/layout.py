"""Checkpoint names, commit marker, newest complete checkpoint, retention.

A checkpoint is `checkpoints/step-N/`. It is complete if and only if it holds `COMMIT.json`, written last, and every file named there has
its recorded size. There is no pointer file: the newest complete folder wins.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

COMMIT = "COMMIT.json"
STATE = "state.json"
_TEMPORARY = ".writing"


def step_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:06d}"


def step_folders(parent: Path) -> dict[int, Path]:
    """The folders `step-N` of checkpoints or exports, complete or not, by N."""
    return {int(match[1]): path for path in parent.glob("step-*") if (match := re.fullmatch(r"step-(\d+)", path.name))}


def temporary_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:06d}{_TEMPORARY}"


def rank_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.pt"


def commit(temporary: Path, final: Path) -> None:
    """Flush every file, write the marker, and give the folder its final name; a crash before the rename leaves no checkpoint."""
    sizes = {}
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            sizes[str(path.relative_to(temporary))] = path.stat().st_size
            _flush(path)
    marker = temporary / COMMIT
    marker.write_text(json.dumps({"files": sizes}, indent=2))
    _flush(marker)
    _flush(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(final.parent)


def is_complete(folder: Path) -> bool:
    """Whether the marker is there and every file it names has its recorded size."""
    try:
        files = json.loads((folder / COMMIT).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def complete_steps(checkpoints: Path) -> list[int]:
    """Steps with a complete checkpoint, oldest first."""
    return sorted(step for step, path in step_folders(checkpoints).items() if is_complete(path))


def remove_old(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints, and leftovers of killed saves."""
    steps = complete_steps(checkpoints)
    for path in checkpoints.glob("step-*"):
        if path.name.endswith(_TEMPORARY) or path in {step_folder(checkpoints, step) for step in steps[:-keep]}:
            shutil.rmtree(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
