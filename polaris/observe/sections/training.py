"""Curves over the steps of training, with the boundaries of the stages."""

from __future__ import annotations

from collections.abc import Mapping

from polaris.config.sft import is_sft
from polaris.observe.charts import Chart, Points, areas, lines, svg
from polaris.observe.markup import figures, note, section
from polaris.observe.phrases import PHASES
from polaris.observe.run_files import RunFiles

_CHARTS = (
    ("Held-out accuracy", True, {"eval/accuracy": "avg@k", "eval/pass_at_k": "pass@k"}),
    ("Loss (nats per token)", False, {"sft/loss": "training", "eval/loss": "held out"}),
    ("Training reward", False, {"reward/mean": "mean"}),
    ("Process reward of wrong responses", False, {"reward/process_mean": "mean", "reward/process_share": "share that earns any"}),
    ("Response length (tokens)", False, {"response/length_mean": "training", "eval/response/length_mean": "evaluation"}),
    ("Responses cut at the token limit", True, {"response/clip_ratio": "training", "eval/response/clip_ratio": "evaluation"}),
    ("Groups", False, {"groups/informative": "informative", "groups/all_right": "all right", "groups/all_wrong": "all wrong"}),
    ("Pass rate of the prompts drawn", True, {f"curriculum/{key}": key for key in ("target", "expected", "measured")}),
    ("Substituted and rescued groups", False, {"groups/substituted": "substituted", "rescue/groups": "rescued"}),
    ("Age of rescuing successes (versions)", False, {"rescue/age_mean": "mean", "rescue/age_max": "oldest"}),
    ("Entropy (nats per token)", False, {"policy/entropy": "policy"}),
    ("Engine to trainer KL (nats per token)", False, {"mismatch/kl_k1": "k1", "mismatch/kl_k3": "k3"}),
    ("Gradient norm", False, {"optimizer/grad_norm": "before clipping"}),
    ("Mean log-prob gap after weight sync (nats)", False, {"sync/logprob_gap": "fixed prompt"}),
    ("Model FLOPs utilisation", True, {"throughput/mfu_update": "trainers' GPUs, update", "throughput/mfu_step": "all GPUs, step"}),
    ("Tokens per second", False, {"throughput/rollout_tokens_per_s": "rollout", "throughput/train_tokens_per_s": "training"}),
)
_SFT_ALONE = "Loss (nats per token)"
_OF_SFT = (_SFT_ALONE, "Gradient norm", "Tokens per second")
_SWITCHES = {"groups/substituted": ("algorithm", "substitution"), "rescue/groups": ("algorithm", "rescue")}
"""What turns on the features of metrics that every step has."""


def training(run: RunFiles) -> str:
    every = curves(run)
    pictures = [svg(lines([chart], run.spans), chart) for chart in every if chart.curves]
    phases = Chart(title="Seconds per step", curves=_measured(run, {f"seconds/{phase}": phase for phase in PHASES}))
    if phases.curves:
        pictures.append(svg(areas(phases, run.spans), phases))
    absent = ", ".join(chart.title[0].lower() + chart.title[1:] for chart in every if not chart.curves)
    return section("Curves", figures(*pictures), note(f"Not in this run: {absent}.") if absent else "")


def curves(run: RunFiles) -> list[Chart]:
    """Every chart that such a run can have, the most telling ones first; some may have no curve."""
    sft = is_sft(run.config or {})
    return [
        Chart(title=title, percent=percent, curves=_measured(run, keys))
        for title, percent, keys in _CHARTS
        if (title in _OF_SFT if sft else title != _SFT_ALONE)
    ]


def most_telling(run: RunFiles, count: int) -> list[Chart]:
    """The first `count` charts that have a curve; of a run that has none yet, the first ones."""
    every = curves(run)
    return ([chart for chart in every if chart.curves] or every)[:count]


def _measured(run: RunFiles, keys: Mapping[str, str]) -> dict[str, Points]:
    """By name, the values of every record that holds the key, unless none of them is finite, or all are 0 of what is off."""
    points = {key: [(record["step"], record[key]) for record in run.records if key in record] for key in keys}
    kept = {key for key, found in points.items() if any(value if _is_off(run, key) else value is not None for _, value in found)}
    return {name: points[key] for key, name in keys.items() if key in kept}


def _is_off(run: RunFiles, key: str) -> bool:
    if run.config is None or key not in _SWITCHES:
        return False
    section, switch = _SWITCHES[key]
    return not run.config.get(section, {}).get(switch)
