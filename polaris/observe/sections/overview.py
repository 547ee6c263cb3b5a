"""What was trained, and the outcome in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polaris.observe.markup import safe
from polaris.observe.phrases import count, duration
from polaris.observe.run_files import RunFiles
from polaris.observe.sections.configuration import flat

_FACTS = ("model.path", "data.path", "algorithm.loss")


def overview(run: RunFiles, summary: Mapping[str, Any]) -> str:
    if run.config is None:
        facts = "This folder has no readable config.json."
    else:
        settings = dict(flat(run.config))
        sets = run.config.get("data", {}).get("sets")
        settings |= {"data.path": ", ".join(one["path"] for one in sets)} if sets else {}
        facts = safe(" | ".join(str(settings[name]) for name in _FACTS if settings.get(name)))
    return f'<h1>{safe(run.name)}</h1><p class="facts">{facts}</p>{_tiles(run, summary)}'


def _losses(run: RunFiles, summary: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """Of a fine-tuning, the loss before and after: the held-out one, or without one that of its first and last step."""
    if "base_loss" in summary:
        return [("held-out loss before", summary["base_loss"]), ("held-out loss after", summary["final_loss"])]
    losses = [record["sft/loss"] for record in run.records if "sft/loss" in record]
    return [("loss of the first step", losses[0]), ("loss of the last step", losses[-1])] if losses else []


def _tiles(run: RunFiles, summary: Mapping[str, Any]) -> str:
    if not run.records:
        return '<p class="empty">No step has been recorded yet.</p>'
    tiles = []
    for key, text in (
        ("base_accuracy", "base accuracy"),
        ("final_accuracy", "final accuracy"),
        ("best_accuracy", f"best, step {summary['best_step']}"),
    ):
        if summary[key] is not None and (key != "best_accuracy" or summary["final_accuracy"] is not None):
            tiles.append((f"{summary[key]:.1%}", text))
    tiles += [(f"{loss:.4f}", text) for text, loss in _losses(run, summary) if loss is not None]
    last = {key: value for record in run.records for key, value in record.items()}
    if not tiles and last.get("reward/mean") is not None:
        tiles.append((f"{last['reward/mean']:.3f}", "last training reward"))
    tiles += [(str(summary["steps"]), "steps"), (duration(summary["minutes"] * 60), "training time")]
    if last.get("throughput/rollout_tokens_per_s") is not None:
        tiles.append((count(last["throughput/rollout_tokens_per_s"]), "rollout tokens/s"))
    if last.get("memory/peak_gib"):
        tiles.append((f"{last['memory/peak_gib']:.1f} GiB", "peak memory"))
    note = f'<p class="facts">Held-out evaluations differ in sampling: {safe(summary["sampled"])}.</p>' if summary["sampled"] else ""
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{value}</b><span>{text}</span></div>' for value, text in tiles)
        + "</div>"
        + note
    )
