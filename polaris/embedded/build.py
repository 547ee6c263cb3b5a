"""Build the embedded model and its problem sets once per recipe, in a cache folder: `polaris sft` makes the model of demonstrations."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers.utils import logging

from polaris.embedded import FILES, model, task, tokenizer
from polaris.embedded.task import Problem
from polaris.errors import RunFailed

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "embedded-sft.toml"
SEEDS = {"demonstrations": 1234, "unseen-demonstrations": 987654}
UNSEEN = 256
_TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def build(folder: Path | None = None, force: bool = False, *, steps: int | None = None) -> Path:
    """Return the folder with the `FILES` of `polaris.embedded`; build it if it is missing or `force` is set.

    It is in `folder` (default `$POLARIS_CACHE`, else `~/.cache/polaris`), under a name that changes with the recipe. `steps` are those of
    the fine-tuning, by default what its configuration says. Concurrent callers wait for the one that builds; after a killed build, the
    next caller starts again. Raises `RunFailed` if the fine-tuning fails.
    """
    cache = folder or Path(os.environ.get("POLARIS_CACHE") or Path.home() / ".cache" / "polaris")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"embedded-{_recipe(steps)}"
    with FileLock(target.with_suffix(".lock")):
        if target.exists() and not force:
            return target
        for killed in cache.glob(f"{target.name}.*.partial"):
            shutil.rmtree(killed, ignore_errors=True)
        # A name of its own: the fine-tuning of a killed build may still write into another.
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=cache))
        _write(partial, steps)
        shutil.rmtree(target, ignore_errors=True)
        partial.chmod(0o755)
        partial.rename(target)
    return target


def _recipe(steps: int | None) -> str:
    sources = [Path(str(module.__file__)).read_bytes() for module in (task, tokenizer, model)]
    return hashlib.sha256(b"\0".join([*sources, CONFIG.read_bytes(), str(steps).encode()])).hexdigest()[:12]


def _write(folder: Path, steps: int | None) -> None:
    trainer = tomllib.loads(CONFIG.read_text())["trainer"]
    steps = steps or trainer["steps"]
    train, test = task.problem_sets()
    for name, problems in (("train", train), ("test", test)):
        _write_rows(folder / FILES[name], _rows(name, problems))
    for name, count in (("demonstrations", steps * trainer["examples_per_step"]), ("unseen-demonstrations", UNSEEN)):
        pairs = islice(task.demonstrations(SEEDS[name], frozenset(test)), count)
        _write_rows(folder / FILES[name], ({"problem": problem.text, "response": response} for problem, response in pairs))
    logging.disable_progress_bar()
    words = tokenizer.build_tokenizer()
    model.new_model(words).save_pretrained(folder / FILES["untrained"])
    words.save_pretrained(folder / FILES["untrained"])
    _fine_tune(folder, steps)


def _rows(name: str, problems: list[Problem]) -> Iterable[dict[str, Any]]:
    for i, problem in enumerate(problems):
        yield {"id": f"{name}-{i}", "problem": problem.text, "answer": problem.answer, "difficulty": len(problem.changes)}


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _fine_tune(folder: Path, steps: int) -> None:
    """Turn `untrained` into `model`, in a process of its own and on the CPU: the caller may be a rank of a training."""
    print(f"building the embedded model (once, two or three minutes): polaris sft configs/{CONFIG.name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "polaris.sft", str(CONFIG), f"--root={folder}", "--name=sft", f"--trainer.steps={steps}"]
    command += [f"--model.path={folder / FILES['untrained']}", f"--data.path={folder / FILES['demonstrations']}"]
    command += [f"--eval.path={folder / FILES['unseen-demonstrations']}", f"--trainer.cpu_threads={min(os.cpu_count() or 1, 4)}"]
    alone = {name: value for name, value in os.environ.items() if name not in _TORCHRUN and not name.startswith("TORCHELASTIC_")}
    done = subprocess.run(command, env=alone | {"CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RunFailed(
            f"the embedded model could not be built; its fine-tuning ended with status {done.returncode}:\n{done.stdout[-3000:]}"
        )
    (folder / "sft" / "export" / f"step-{steps:06d}").rename(folder / FILES["model"])
    shutil.rmtree(folder / "sft")
