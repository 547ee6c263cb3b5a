"""The sampling temperature of all stages: what the probes have measured, why they chose, and how "track" moved it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from polaris.algorithm.zones import Zones
from polaris.observe import charts
from polaris.observe.markup import figures, note, percent, safe, section, table
from polaris.observe.run_files import Result, RunFiles, Span
from polaris.observe.temperature_words import KEPT, MEANING, doubts, reason, share
from polaris.observe.temperature_words import percent as rounded_down

_HEAD = (
    "temperature",
    "accuracy",
    "95% interval",
    "kept",
    "responses",
    "distinct words",
    "distinct tokens",
    "mean length",
    "cut off",
    "zone",
)
_HELD = "rollout/diversity_held"


def temperature(run: RunFiles) -> str:
    tracked = {span.number: _tracked(run, span) for span in run.spans}
    numbers = sorted({*run.temperatures, *(number for number, text in tracked.items() if text)})
    if not numbers:
        return ""
    own = note("Each probe draws samples of its own, with other seeds and prompts than the held-out evaluations at the same step.")
    stages = [
        (_probed(number, run.temperatures[number]) if number in run.temperatures else _heading(number, "")) + tracked.get(number, "")
        for number in numbers
    ]
    return section("Sampling temperature", *([own] if run.last_evaluation and run.temperatures else []), *stages)


def _heading(number: int, temperature: str) -> str:
    return f"<h3>Stage {number}{temperature}</h3>"


def _probed(number: int, result: Result) -> str:
    responses = sum(reading.get("samples", 0) * len(reading["per_prompt"]) for reading in result["readings"])
    drawn = f"; {responses:,} responses to {result['settings']['prompts']} prompts" if responses else ""
    text = f"{safe(reason(result))}{drawn}."
    picture = figures(charts.svg(charts.temperature(result))) if len(result["readings"]) > 1 else ""
    said = [note(f"{safe(doubt[0].upper() + doubt[1:])}.") for doubt in doubts(result)]
    kept = note(f"{KEPT[0].upper()}{KEPT[1:]}.") if "zones" in result else ""
    return "".join([_heading(number, f": {result['temperature']:g}"), note(text), picture, kept, _table(result), *said, _meanings(result)])


def _meanings(result: Result) -> str:
    """What the zones mean that the table names."""
    if "zones" not in result:
        return ""
    zones = Zones(**result["zones"])
    there = {zones.of(reading["temperature"]) for reading in result["readings"]}
    meant = [f"{name}: {meaning}" for name, meaning in MEANING.items() if name in there]
    return note(f"{'; '.join(meant)}.")


def _table(result: Result) -> str:
    zones = Zones(**result["zones"]) if "zones" in result else None
    rows = []
    readings = sorted(result["readings"], key=lambda reading: reading["temperature"])
    kept = zones.kept if zones and zones.kept else (None,) * len(readings)
    for reading, chance in zip(readings, kept, strict=True):
        at = reading["temperature"]
        cells = (
            f"{at:g}",
            percent(reading["accuracy"]),
            f"{percent(reading['accuracy_low'])} to {percent(reading['accuracy_high'])}",
            "-" if chance is None else rounded_down(chance),
            f"{reading['samples'] * len(reading['per_prompt']):,}" if "samples" in reading else "-",
            share(reading["words"]),
            share(reading["tokens"]),
            f"{reading['length_mean']:,.0f}",
            percent(reading["clip_ratio"]),
            zones.of(at) if zones else "-",
        )
        rows.append([f"<b>{cell}</b>" for cell in cells] if at == result["temperature"] else cells)
    return table(_HEAD, rows)


def _tracked(run: RunFiles, span: Span) -> str:
    """How the temperature of a stage followed diversity; nothing for a stage with one temperature."""
    records = [record for record in run.records if span.first < record["step"] <= span.last and "rollout/temperature" in record]
    if not any(_HELD in record for record in records):
        return ""

    def curve(key: str) -> charts.Points:
        return [(record["step"], record[key]) for record in records if key in record]

    pictures = charts.lines(
        [
            charts.Chart(title="Sampling temperature", curves={"temperature": curve("rollout/temperature")}),
            charts.Chart(title="Diversity", curves={"of the step": curve("rollout/diversity"), "to hold": curve(_HELD)}),
        ]
    )
    return note(safe(_path(records))) + figures(charts.svg(pictures))


def _path(records: Sequence[dict[str, Any]]) -> str:
    """The way of the temperature, in words."""
    way = [record["rollout/temperature"] for record in records]
    up, down = sum(b > a for a, b in pairwise(way)), sum(b < a for a, b in pairwise(way))
    held = next(record[_HELD] for record in reversed(records) if _HELD in record)
    ways = " and ".join(f"{where} {_times(count)}" for where, count in (("up", up), ("down", down)) if count)
    moved = f"it went {ways}, between {min(way):g} and {max(way):g}, and ended at {way[-1]:g}"
    return (
        f"The temperature follows the policy, to hold the diversity of the stage's first steps ({held:.3f}): "
        f"{moved if up + down else f'it stayed at {way[0]:g}, since diversity did not change beyond its noise'}."
    )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
