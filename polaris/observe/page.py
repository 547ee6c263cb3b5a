"""The report as one HTML page: no network, no server, and nothing that a model wrote can run.

Covered: every value from the run is HTML-escaped text or attribute text, and the page's Content-Security-Policy admits only
the style sheet and the script whose hashes it names. Not covered: what a rollout says to its reader.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polaris.observe.assets import SCRIPT, STYLE
from polaris.observe.curves import Curve, area_chart, line_chart
from polaris.observe.phrases import PHASES, count, duration
from polaris.observe.plot import points

MAX_CHARS = 60_000
"""A longer text loses its middle."""

_CHARTS = (
    ("Held-out accuracy", True, {"eval/accuracy": "avg@k", "eval/pass_at_k": "pass@k"}),
    ("Training reward", False, {"reward/mean": "mean"}),
    ("Response length (tokens)", False, {"response/length_mean": "training", "eval/response_length_mean": "evaluation"}),
    ("Responses cut at the token limit", True, {"response/clip_ratio": "training", "eval/clip_ratio": "evaluation"}),
    ("Groups", False, {"groups/informative": "informative", "groups/all_right": "all right", "groups/all_wrong": "all wrong"}),
    ("Entropy (nats per token)", False, {"policy/entropy": "policy"}),
    ("Engine to trainer KL (nats per token)", False, {"mismatch/kl_k1": "k1", "mismatch/kl_k3": "k3"}),
    ("Gradient norm", False, {"optimizer/grad_norm": "before clipping"}),
    ("Log-prob gap after weight sync (nats)", False, {"sync/logprob_gap": "fixed prompt"}),
    ("Tokens per second", False, {"throughput/rollout_tokens_per_s": "rollout", "throughput/train_tokens_per_s": "training"}),
)
_COLOURS = {"correct": "good", "wrong": "bad"}


def render(
    name: str,
    config: Mapping[str, Any] | None,
    records: Sequence[dict[str, Any]],
    rollouts: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> str:
    """The whole page. `config` is None where config.json is missing; `summary` is that of `polaris.observe.report`."""
    policy = f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; base-uri 'none'; form-action 'none'"
    parts = [_header(name, config), _tiles(records, summary), _charts(records), _rollouts(rollouts), _configuration(config)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)} - Polaris</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _header(name: str, config: Mapping[str, Any] | None) -> str:
    if config is None:
        return f'<h1>{escape(name)}</h1><p class="facts">This folder has no readable config.json.</p>'
    settings = dict(_flat(config))
    facts = [settings.get("model.path"), settings.get("data.path"), settings.get("algorithm.loss")]
    return f'<h1>{escape(name)}</h1><p class="facts">{escape(" | ".join(str(fact) for fact in facts if fact))}</p>'


def _tiles(records: Sequence[dict[str, Any]], summary: Mapping[str, Any]) -> str:
    if not records:
        return '<h2>Summary</h2><p class="empty">No step has been recorded yet.</p>'
    tiles = []
    for key, text in (
        ("base_accuracy", "base accuracy"),
        ("final_accuracy", "final accuracy"),
        ("best_accuracy", f"best, step {summary['best_step']}"),
    ):
        if summary[key] is not None:
            tiles.append((f"{summary[key]:.1%}", text))
    last = {key: value for record in records for key, value in record.items()}
    if not tiles and last.get("reward/mean") is not None:
        tiles.append((f"{last['reward/mean']:.3f}", "last training reward"))
    tiles += [(str(summary["steps"]), "steps"), (duration(summary["minutes"] * 60), "training time")]
    if last.get("throughput/rollout_tokens_per_s") is not None:
        tiles.append((count(last["throughput/rollout_tokens_per_s"]), "rollout tokens/s"))
    if last.get("memory/peak_gib"):
        tiles.append((f"{last['memory/peak_gib']:.1f} GiB", "peak memory"))
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{value}</b><span>{text}</span></div>' for value, text in tiles) + "</div>"


def _charts(records: Sequence[dict[str, Any]]) -> str:
    figures = []
    absent = []
    for title, percent, keys in _CHARTS:
        curves = _curves(records, keys)
        if curves:
            figures.append(_figure(title, curves, line_chart(curves, percent=percent)))
        else:
            absent.append(title.lower())
    phases = _curves(records, {f"seconds/{phase}": phase for phase in PHASES})
    if phases:
        figures.append(_figure("Seconds per step", phases, area_chart(phases)))
    note = f'<p class="dim">Not in this run: {", ".join(absent)}.</p>' if absent else ""
    return f'<h2>Curves</h2><div class="charts">{"".join(figures)}</div>{note}'


def _curves(records: Sequence[dict[str, Any]], keys: Mapping[str, str]) -> list[Curve]:
    curves = [Curve(name, points(records, key)) for key, name in keys.items()]
    return [curve for curve in curves if any(value is not None for _, value in curve.points)]


def _figure(title: str, curves: Sequence[Curve], svg: str) -> str:
    keys = [f'<span class="key"><i class="s{index}"></i>{curve.name}</span>' for index, curve in enumerate(curves)]
    legend = "".join(keys) if len(curves) > 1 else ""
    return f"<figure><figcaption>{title}{legend}</figcaption>{svg}<output></output></figure>"


def _rollouts(rollouts: Sequence[Mapping[str, Any]]) -> str:
    if not rollouts:
        return '<h2>Rollouts</h2><p class="empty">No rollouts were kept in this run.</p>'
    names = ("all", *sorted({str(rollout.get("verdict")) for rollout in rollouts}))
    buttons = [f'<button value="{escape(name)}" aria-pressed="{str(name == "all").lower()}">{escape(name)}</button>' for name in names]
    return f'<h2>Rollouts</h2><div class="filter">{"".join(buttons)}</div>{"".join(_rollout(rollout) for rollout in rollouts)}'


def _rollout(rollout: Mapping[str, Any]) -> str:
    verdict = str(rollout.get("verdict"))
    names = ("step", "reward", "advantage", "length", "finish_reason", "reason")
    facts = ", ".join(f"{name.replace('_', ' ')} {_short(rollout[name])}" for name in names if rollout.get(name) not in (None, ""))
    thinking, answer = _split(str(rollout.get("response", "")))
    folded = f"<details><summary>Thinking ({count(len(thinking))} characters)</summary>{_text(thinking)}</details>" if thinking else ""
    answers = (("Graded", rollout.get("answer")), ("Ground truth", rollout.get("ground_truth")))
    graded = "".join(f'<span class="part">{name}</span>{_text(value)}' for name, value in answers if value is not None)
    return (
        f'<article class="rollout {_COLOURS.get(verdict, "other")}" data-verdict="{escape(verdict)}">'
        f'<span class="verdict">{escape(verdict)}</span><span class="dim">{escape(facts)}</span>'
        f'<div class="part">Prompt</div>{_text(rollout.get("prompt", ""))}'
        f'<div class="part">Response</div>{folded}{_text(answer)}'
        f'<div class="answers">{graded}</div></article>'
    )


def _split(response: str) -> tuple[str, str]:
    """Thinking and what follows it; a thought that never ends is all thinking."""
    thinking, mark, answer = response.rpartition("</think>")
    if mark:
        return thinking.removeprefix("<think>").strip(), answer.strip()
    return (response.removeprefix("<think>").strip(), "") if response.startswith("<think>") else ("", response)


def _text(text: object) -> str:
    whole = str(text)
    if len(whole) > MAX_CHARS:
        half = MAX_CHARS // 2
        whole = f"{whole[:half]}\n[... {len(whole) - MAX_CHARS} characters left out ...]\n{whole[-half:]}"
    return f"<pre>{escape(whole)}</pre>"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _configuration(config: Mapping[str, Any] | None) -> str:
    if config is None:
        return ""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in _flat(config))
    return f"<h2>Configuration</h2><details><summary>Every setting</summary><table>{rows}</table></details>"


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + str(key), value)]
    return pairs
