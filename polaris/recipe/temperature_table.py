"""A result of the temperature probe as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polaris.algorithm.zones import MOST_DOUBLINGS, SURE, Zones, may_lose


def table(result: Mapping[str, Any]) -> list[str]:
    """The readings of a result, with their zones if it has them, and what the probe could not decide."""
    zones = Zones(**result["zones"]) if "zones" in result else None
    kept = [_percent(chance) for chance in zones.kept] if zones and zones.kept else [""] * len(result["readings"])
    lines = ["temperature  responses  accuracy  95% interval  kept  distinct words  tokens  length  cut off  zone"]
    for values, chance in zip(result["readings"], kept, strict=True):
        zone = zones.of(values["temperature"]) if zones else ""
        chosen = "  <- chosen" if values["temperature"] == result["temperature"] else ""
        lines.append(f"{_line(values, chance)}  {zone}{chosen}".rstrip())
    return lines if zones is None else [*lines, *_doubts(result, zones)]


def _line(values: Mapping[str, Any], kept: str) -> str:
    accuracy, low, high = (100 * values[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    shares = f"{values['words']:>14.3f}  {values['tokens']:>6.3f}"
    lengths = f"{values['length_mean']:>6.0f}  {100 * values['clip_ratio']:>6.1f}%"
    responses = values.get("samples", 0) * len(values["per_prompt"])
    return (
        f"{values['temperature']:>11g}  {responses:>9,}  {accuracy:>7.1f}%  {f'{low:.1f}-{high:.1f}':>12}  {kept:>4}  {shares}  {lengths}"
    )


def _doubts(result: Mapping[str, Any], zones: Zones) -> Iterator[str]:
    """Nothing where every temperature is decided."""
    chances = dict(zip((values["temperature"] for values in result["readings"]), zones.kept, strict=False))
    prompts, within = result["settings"]["prompts"], f"within {may_lose(result['settings']['tolerance']):.0%} of the best accuracy"
    chosen = chances.get(zones.initial, 1.0)
    if chosen < SURE:
        best = f"{zones.initial:g} is chosen as the most probable one ({_percent(chosen)})"
        yield f"no temperature is sure ({SURE:.0%}) to stay {within}; {best}"
    unclear = [f"{temperature:g}" for temperature, chance in chances.items() if 1 - SURE < chance < SURE]
    if unclear:
        subject = f"temperature {unclear[0]} stays" if len(unclear) == 1 else f"temperatures {_listed(unclear)} stay"
        needed = zones.prompts_to_tell
        remedy = (
            f"about {needed} could, if they have the same accuracies" if needed else f"{2**MOST_DOUBLINGS} times as many could not either"
        )
        yield f"{prompts} prompts cannot tell whether {subject} {within}; {remedy} (probe.prompts)"


def _percent(chance: float) -> str:
    """Rounded down: what is not sure does not look so."""
    return f"{math.floor(100 * chance + 1e-9)}%"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
