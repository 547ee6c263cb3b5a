"""A run's folder as one page and one picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polaris.observe.files import write_atomically
from polaris.observe.metrics import read_records
from polaris.observe.page import render
from polaris.observe.phrases import summary_line
from polaris.observe.plot import png

MAX_STEPS_WITH_ROLLOUTS = 6
MAX_ROLLOUTS_PER_STEP = 8


def write_report(run_folder: Path) -> Path:
    """Write `report.html` and `report.png` from whatever the run has left so far; the path of the page.

    Raises `ValueError` if there is no such folder or a line of its files is damaged.
    """
    outcome = summary(run_folder)
    records = read_records(run_folder / "metrics.jsonl")
    config = _config(run_folder / "config.json")
    name = str((config or {}).get("name", run_folder.resolve().name))
    page = render(name, config, records, _rollouts(run_folder / "rollouts"), outcome)
    write_atomically(run_folder / "report.png", png(records, f"{name}: {summary_line(outcome)}"))
    path = run_folder / "report.html"
    write_atomically(path, page.encode(errors="replace"))
    return path


def summary(run_folder: Path) -> dict[str, Any]:
    """base_accuracy, final_accuracy, best_accuracy (avg@k in [0, 1]), best_step, steps, minutes; None where not measured."""
    if not (run_folder / "config.json").is_file() and not (run_folder / "metrics.jsonl").is_file():
        raise ValueError(f"{run_folder} is not a run folder; give the one that holds metrics.jsonl")
    records = read_records(run_folder / "metrics.jsonl")
    return summarize(records)


def summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`summary` of records that are already read."""
    accuracy = [(record["step"], record["eval/accuracy"]) for record in records if record.get("eval/accuracy") is not None]
    best_step, best = max(accuracy, key=lambda pair: pair[1], default=(None, None))
    return {
        "base_accuracy": accuracy[0][1] if accuracy and accuracy[0][0] == 0 else None,
        "final_accuracy": accuracy[-1][1] if accuracy else None,
        "best_accuracy": best,
        "best_step": best_step,
        "steps": max((record["step"] for record in records), default=0),
        "minutes": sum(record.get("seconds/step") or 0.0 for record in records) / 60,
    }


def _config(path: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def _rollouts(folder: Path) -> list[dict[str, Any]]:
    """The first and the last recorded step and some between them."""
    files = sorted(folder.glob("step-*.jsonl"))
    if len(files) > MAX_STEPS_WITH_ROLLOUTS:
        last = MAX_STEPS_WITH_ROLLOUTS - 1
        files = [files[round(index * (len(files) - 1) / last)] for index in range(MAX_STEPS_WITH_ROLLOUTS)]
    return [rollout for path in files for rollout in read_records(path)[:MAX_ROLLOUTS_PER_STEP]]
