"""Rollouts to read: prompt, thinking, answer and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polaris.config.sft import is_sft
from polaris.observe.coloured import LEVELS, Runs, block, level_runs
from polaris.observe.markup import folded, note, safe, section
from polaris.observe.phrases import count
from polaris.observe.run_files import RunFiles, Span

_COLOURS = {"correct": "good", "wrong": "bad"}
_FACTS = {
    "step": "step {}",
    "reward": "reward {}",
    "process": "{} of it process reward",
    "advantage": "advantage {}",
    "length": "{} tokens",
    "finish_reason": "finish reason {}",
    "version": "weights after {} updates",
    "reason": "grader: {}",
}
_OPEN, _CLOSE = "<think>", "</think>"


def rollouts(run: RunFiles) -> str:
    if not run.rollouts:
        return "" if is_sft(run.config or {}) else section("Rollouts", '<p class="empty">No rollouts were kept in this run.</p>')
    stages = [_stage(run.spans, rollout) for rollout in run.rollouts]
    filters = _filter("verdict", sorted({str(rollout.get("verdict")) for rollout in run.rollouts}))
    if len(set(stages)) > 1:
        filters += _filter("stage", sorted(set(stages)))
    coloured = any(level_runs(rollout) is not None for rollout in run.rollouts)
    keys = " ".join(f'<span class="key"><i class="p{level}">{name}</i></span>' for level, name in enumerate(LEVELS))
    cards = "".join(_rollout(rollout, stage) for rollout, stage in zip(run.rollouts, stages, strict=True))
    shown = f'<p class="dim shown" role="status">{len(run.rollouts)} rollouts</p>'
    return section("Rollouts", filters, shown, note(f"Probability of each token when it was sampled: {keys}") if coloured else "", cards)


def _filter(name: str, values: Sequence[str]) -> str:
    buttons = "".join(
        f'<button type="button" value="{safe(value)}" aria-pressed="{str(value == "all").lower()}">{_words(value)}</button>'
        for value in ("all", *values)
    )
    return f'<div class="filter" role="group" aria-label="{name}" data-key="{name}"><span class="dim">{name}</span>{buttons}</div>'


def _words(name: str) -> str:
    """A verdict's name as words."""
    return safe(name.replace("_", " "))


def _stage(spans: Sequence[Span], rollout: Mapping[str, Any]) -> str:
    """The number of the stage that drew it; nothing for a run without stages."""
    step = rollout.get("step")
    return next((str(span.number) for span in spans if isinstance(step, int) and step <= span.last), "")


def _rollout(rollout: Mapping[str, Any], stage: str) -> str:
    verdict = str(rollout.get("verdict"))
    facts = [words.format(_short(rollout[name])) for name, words in _FACTS.items() if rollout.get(name) not in (None, "")]
    facts = [f"stage {stage}", *facts] if stage else facts
    answers = (("Graded", rollout.get("answer")), ("Ground truth", rollout.get("ground_truth")))
    graded = "".join(f'<span class="part">{name}</span>{block(str(value))}' for name, value in answers if value is not None)
    return (
        f'<article class="rollout {_COLOURS.get(verdict, "other")}" data-verdict="{safe(verdict)}" data-stage="{stage}">'
        f'<span class="verdict">{_words(verdict)}</span><span class="dim">{safe(", ".join(facts))}</span>'
        f'<div class="part">Prompt</div>{block(str(rollout.get("prompt", "")))}'
        f'<div class="part">Response</div>{_response(str(rollout.get("response", "")), level_runs(rollout))}'
        f'<div class="answers">{graded}</div></article>'
    )


def _response(response: str, runs: Runs | None) -> str:
    """Thinking, folded, and what follows it; a thought that never ends is all thinking."""
    begin = len(_OPEN) if response.startswith(_OPEN) else 0
    end = response.rfind(_CLOSE)
    if end < 0 and not begin:
        return _trimmed(response, 0, len(response), runs)
    stop = end if end >= 0 else len(response)
    thinking = folded(f"Thinking ({count(stop - begin)} characters)", _trimmed(response, begin, stop, runs))
    return thinking + (_trimmed(response, end + len(_CLOSE), len(response), runs) if end >= 0 else "")


def _trimmed(text: str, start: int, stop: int, runs: Runs | None) -> str:
    """The part from `start` to `stop` without white space around it."""
    part = text[start:stop]
    return block(part.strip(), runs, start + len(part) - len(part.lstrip()))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
