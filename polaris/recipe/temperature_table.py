"""A result of the temperature probe as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polaris.algorithm.zones import SURE, Zones


def table(result: Mapping[str, Any]) -> list[str]:
    """The readings of a result, with their zones where it has them, and what the probe cannot tell."""
    zones = Zones(**result["zones"]) if "zones" in result else None
    kept = [f"{chance:.0%}" for chance in zones.kept] if zones and zones.kept else [""] * len(result["readings"])
    lines = ["temperature  accuracy  95% interval  kept  distinct words  tokens  length  cut off  zone"]
    for values, chance in zip(result["readings"], kept, strict=True):
        zone = zones.of(values["temperature"]) if zones else ""
        chosen = "  <- chosen" if values["temperature"] == result["temperature"] else ""
        lines.append(f"{_line(values, chance)}  {zone}{chosen}".rstrip())
    return lines if zones is None else [*lines, *_doubts(result, zones)]


def _line(values: Mapping[str, Any], kept: str) -> str:
    accuracy, low, high = (100 * values[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    shares = f"{values['words']:>14.3f}  {values['tokens']:>6.3f}"
    lengths = f"{values['length_mean']:>6.0f}  {100 * values['clip_ratio']:>6.1f}%"
    return f"{values['temperature']:>11g}  {accuracy:>7.1f}%  {f'{low:.1f}-{high:.1f}':>12}  {kept:>4}  {shares}  {lengths}"


def _doubts(result: Mapping[str, Any], zones: Zones) -> Iterator[str]:
    """Nothing where every temperature is decided."""
    chances = dict(zip((values["temperature"] for values in result["readings"]), zones.kept, strict=False))
    prompts, tolerance = result["settings"]["prompts"], result["settings"]["tolerance"]
    if max(chances.values(), default=1.0) < SURE:
        yield (
            f"no temperature is sure ({SURE:.0%}) to keep the best accuracy within {tolerance:.0%}: {zones.initial:g} most probably "
            f"does ({chances[zones.initial]:.0%})"
        )
    open_ones = [f"{temperature:g}" for temperature, chance in chances.items() if 1 - SURE < chance < SURE]
    if open_ones:
        needed = zones.prompts_to_tell
        enough = f"about {needed} would, if their accuracies are these" if needed else "nor would 64 times as many"
        yield f"{prompts} prompts cannot tell whether {', '.join(open_ones)} keep the accuracy; {enough} (probe.prompts)"
