"""Build the embedded model and its problem sets once per recipe, in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from filelock import FileLock
from transformers.utils import logging

from polaris.embedded import task, tokenizer, warmup
from polaris.embedded.task import Problem


def _recipe(steps: int) -> str:
    sources = [Path(str(module.__file__)).read_bytes() for module in (task, tokenizer, warmup)]
    return hashlib.sha256(b"\0".join([*sources, b"%d" % steps])).hexdigest()[:12]


def _write_problems(path: Path, problems: list[Problem]) -> None:
    rows = (
        {"id": f"{path.stem}-{i}", "problem": problem.text, "answer": problem.answer, "difficulty": len(problem.changes)}
        for i, problem in enumerate(problems)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write(folder: Path, steps: int) -> None:
    train, test = task.problem_sets()
    _write_problems(folder / "train.jsonl", train)
    _write_problems(folder / "test.jsonl", test)
    logging.disable_progress_bar()
    words = tokenizer.build_tokenizer()
    warmup.train(words, frozenset(test), steps).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")


def build(folder: Path | None = None, force: bool = False, *, steps: int = warmup.STEPS) -> Path:
    """Return the folder with `model/`, `train.jsonl` and `test.jsonl`; build it if it is missing or `force` is set.

    It is in `folder` (default `$POLARIS_CACHE`, else `~/.cache/polaris`), under a name that changes with the recipe.
    Concurrent callers wait for the one that builds; after a killed build, the next caller starts again.
    """
    cache = folder or Path(os.environ.get("POLARIS_CACHE") or Path.home() / ".cache" / "polaris")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"embedded-{_recipe(steps)}"
    partial = target.with_suffix(".partial")
    with FileLock(target.with_suffix(".lock")):
        if target.exists() and not force:
            return target
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write(partial, steps)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return target
