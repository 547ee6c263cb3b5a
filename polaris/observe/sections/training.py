"""Curves over the steps of training, with the boundaries of the stages."""

from __future__ import annotations

from collections.abc import Mapping

from polaris.observe.curves import Curve, area_chart, line_chart
from polaris.observe.markup import figure, note, section
from polaris.observe.phrases import PHASES
from polaris.observe.plot import points
from polaris.observe.run_files import RunFiles

_CHARTS = (
    ("Held-out accuracy", True, {"eval/accuracy": "avg@k", "eval/pass_at_k": "pass@k"}),
    ("Training reward", False, {"reward/mean": "mean"}),
    ("Response length (tokens)", False, {"response/length_mean": "training", "eval/response/length_mean": "evaluation"}),
    ("Responses cut at the token limit", True, {"response/clip_ratio": "training", "eval/response/clip_ratio": "evaluation"}),
    ("Groups", False, {"groups/informative": "informative", "groups/all_right": "all right", "groups/all_wrong": "all wrong"}),
    ("Substituted and rescued groups", False, {"groups/substituted": "substituted", "rescue/groups": "rescued"}),
    ("Age of rescuing successes (versions)", False, {"rescue/age_mean": "mean", "rescue/age_max": "oldest"}),
    ("Entropy (nats per token)", False, {"policy/entropy": "policy"}),
    ("Engine to trainer KL (nats per token)", False, {"mismatch/kl_k1": "k1", "mismatch/kl_k3": "k3"}),
    ("Gradient norm", False, {"optimizer/grad_norm": "before clipping"}),
    ("Mean log-prob gap after weight sync (nats)", False, {"sync/logprob_gap": "fixed prompt"}),
    ("Tokens per second", False, {"throughput/rollout_tokens_per_s": "rollout", "throughput/train_tokens_per_s": "training"}),
)


def training(run: RunFiles) -> str:
    figures, absent = [], []
    for title, percent, keys in _CHARTS:
        curves = _curves(run, keys)
        if curves:
            figures.append(_figure(title, curves, line_chart(curves, percent=percent, stages=run.spans)))
        else:
            absent.append(title.lower())
    phases = _curves(run, {f"seconds/{phase}": phase for phase in PHASES})
    if phases:
        figures.append(_figure("Seconds per step", phases, area_chart(phases, stages=run.spans)))
    missing = note(f"Not in this run: {', '.join(absent)}.") if absent else ""
    return section("Curves", f'<div class="charts">{"".join(figures)}</div>', missing)


def _curves(run: RunFiles, keys: Mapping[str, str]) -> list[Curve]:
    curves = [Curve(name, points(run.records, key)) for key, name in keys.items()]
    return [curve for curve in curves if any(value is not None for _, value in curve.points)]


def _figure(title: str, curves: list[Curve], svg: str) -> str:
    return figure(
        title, f"{svg}<output></output>", [(f"s{index}", curve.name) for index, curve in enumerate(curves)] if len(curves) > 1 else ()
    )
