"""A run's folder as one page and one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polaris.files import write_atomically
from polaris.observe.phrases import summary_line
from polaris.observe.run_files import read_run

_CHARTS_OF_PNG = 3
_SAMPLING = {
    "eval/temperature": "temperature",
    "eval/response/limit": "limit",
    "eval/problems": "problems",
    "eval/samples_per_prompt": "samples per problem",
}
"""What of an evaluation's record must be the same in two that are compared, and its name in words."""


def write_report(run_folder: Path) -> Path:
    """Write `report.html` and `report.png` from whatever the run has left so far; the path of the page.

    Raises `ValueError` if there is no such folder or a line of its files is damaged.
    """
    from polaris.observe.charts import lines, png
    from polaris.observe.page import render
    from polaris.observe.sections.training import most_telling

    run = read_run(run_folder)
    outcome = summarize(run.records, run.held_out_since)
    picture = lines(most_telling(run, _CHARTS_OF_PNG), run.spans, f"{run.name}: {summary_line(outcome)}")
    write_atomically(run_folder / "report.png", png(picture))
    path = run_folder / "report.html"
    write_atomically(path, render(run, outcome).encode(errors="replace"))
    return path


def summary(run_folder: Path) -> dict[str, Any]:
    """base_accuracy, final_accuracy, best_accuracy (avg@k in [0, 1]), final_step, best_step, steps, minutes; None where not measured.

    One evaluation alone is the base's at step 0, the final one anywhere else. `sampled` says in what the evaluations differ besides the
    weights, such as `temperature 0.6 to 1.1`; or nothing.
    """
    run = read_run(run_folder)
    return summarize(run.records, run.held_out_since)


def summarize(records: Sequence[Mapping[str, Any]], held_out_since: int = -1) -> dict[str, Any]:
    """`summary` of records that are already read. Evaluations up to step `held_out_since` are of other held-out prompts, and left out."""
    evaluated = [record for record in records if record.get("eval/accuracy") is not None and record["step"] > held_out_since]
    accuracy = [(record["step"], record["eval/accuracy"]) for record in evaluated]
    best_step, best = max(accuracy, key=lambda pair: pair[1], default=(None, None))
    return {
        "base_accuracy": accuracy[0][1] if accuracy and accuracy[0][0] == 0 else None,
        "final_accuracy": accuracy[-1][1] if accuracy and accuracy[-1][0] > 0 else None,
        "final_step": accuracy[-1][0] if accuracy and accuracy[-1][0] > 0 else None,
        "best_accuracy": best,
        "best_step": best_step,
        **_losses(records),
        "sampled": ", ".join(filter(None, (_range(evaluated, key, name) for key, name in _SAMPLING.items()))),
        "steps": max((record["step"] for record in records), default=0),
        "minutes": sum(record.get("seconds/step") or 0.0 for record in records) / 60,
    }


def _losses(records: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """First and last held-out loss of a fine-tuning; `{}` for other runs."""
    losses = [record["eval/loss"] for record in records if "eval/loss" in record]
    return {"base_loss": losses[0], "final_loss": losses[-1]} if losses else {}


def _range(records: Sequence[Mapping[str, Any]], key: str, name: str) -> str:
    values = [record[key] for record in records if record.get(key) is not None]
    return f"{name} {min(values):g} to {max(values):g}" if len(set(values)) > 1 else ""
