"""A result of the temperature probe as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polaris.algorithm.zones import Zones
from polaris.observe.temperature_words import KEPT, doubts, percent, reason, share


def table(result: Mapping[str, Any]) -> list[str]:
    """The readings of a result, with their zones if it has them; why this temperature, and what the probe could not decide."""
    zones = Zones(**result["zones"]) if "zones" in result else None
    kept = [percent(chance) for chance in zones.kept] if zones and zones.kept else [""] * len(result["readings"])
    lines = [KEPT] if zones and zones.kept else []
    lines += ["temperature  responses  accuracy  95% interval  kept  distinct words  tokens  length  cut off  zone"]
    for values, chance in zip(result["readings"], kept, strict=True):
        zone = zones.of(values["temperature"]) if zones else ""
        chosen = "  <- chosen" if values["temperature"] == result["temperature"] else ""
        lines.append(f"{_line(values, chance)}  {zone}{chosen}".rstrip())
    return [*lines, reason(result), *doubts(result)]


def _line(values: Mapping[str, Any], kept: str) -> str:
    accuracy, low, high = (100 * values[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    responses = values.get("samples", 0) * len(values["per_prompt"])
    shares = f"{share(values['words']):>14}  {share(values['tokens']):>6}"
    lengths = f"{values['length_mean']:>6.0f}  {100 * values['clip_ratio']:>6.1f}%"
    interval = f"{low:.1f}-{high:.1f}"
    return f"{values['temperature']:>11g}  {responses:>9,}  {accuracy:>7.1f}%  {interval:>12}  {kept:>4}  {shares}  {lengths}"
