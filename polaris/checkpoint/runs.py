"""Recognising run folders, and naming others when one is missing."""

from __future__ import annotations

import json
from pathlib import Path

_MARKS = ("checkpoints", "export", "stages", "metrics.jsonl")
_MOST = 8


def is_run(folder: Path) -> bool:
    """Whether a folder belongs to a training run that has left something, and is not a model's folder."""
    config = folder / "config.json"
    return config.is_file() and any((folder / mark).exists() for mark in _MARKS) and not _is_model(config)


def _is_model(config: Path) -> bool:
    try:
        values = json.loads(config.read_text())
    except ValueError:
        return False
    return isinstance(values, dict) and "model_type" in values


def meant_as_run(path: Path, root: Path) -> bool:
    """Whether a missing path was meant as a run: it would lie in `root`, the folder of runs, or beside another run."""
    bare = path.parent == Path()  # a name on the hub, or `embedded:model`
    return not path.exists() and (path.parent == root or (not bare and bool(_runs_in(path.parent))))


def beside(path: Path) -> str:
    """For a refusal: the runs in the folder of `path`, or how to name one if there are none."""
    found = _runs_in(path.parent)
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    if not found:
        return "give one such as runs/my-run, or runs/my-run@step-40"
    return f"there {'are' if found[1:] else 'is'} {', '.join(str(path.parent / name) for name in found[:_MOST])}{more}"


def _runs_in(folder: Path) -> list[str]:
    """Names, the last used first."""
    found = [path for path in folder.iterdir() if is_run(path)] if folder.is_dir() else []
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]
