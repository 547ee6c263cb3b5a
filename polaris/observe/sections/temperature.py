"""The temperature probes of all stages."""

from __future__ import annotations

from polaris.algorithm.zones import Zones
from polaris.observe import charts
from polaris.observe.markup import figures, note, percent, safe, section, table
from polaris.observe.run_files import Result, RunFiles

_HEAD = ("temperature", "accuracy", "95% interval", "kept", "distinct words", "distinct tokens", "mean length", "cut off", "zone")
_REASONS = {"probe": "highest diversity before accuracy declines", "fixed": "as configured"}


def temperature(run: RunFiles) -> str:
    if not run.temperatures:
        return ""
    own = note("Each probe draws samples of its own, with other seeds and prompts than the held-out evaluations at the same step.")
    stages = [_stage(number, result) for number, result in run.temperatures.items()]
    return section("Sampling temperature", *([own] if run.last_evaluation else []), *stages)


def _stage(number: int, result: Result) -> str:
    settings = result["settings"]
    why = _REASONS.get(result["source"]) or _end_of_search(result)
    head = f"<h3>Stage {number}: {result['temperature']:g}</h3>" + note(
        f"{why}; {settings['prompts']} prompts, {settings['samples_per_prompt']} responses each"
        + (f"; diversity to restore {result['target']:.3f}" if "target" in result else "")
    )
    picture = figures(charts.svg(charts.temperature(result))) if len(result["readings"]) > 1 else ""
    return f"{head}{picture}{_table(result)}"


def _end_of_search(result: Result) -> str:
    if "stopped" not in result:
        return safe(result["source"])
    there = " at the next temperature" if result["stopped"] == "accuracy collapses" else ""
    return f"the search for the diversity ended: {safe(result['stopped'])}{there}"


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
            "-" if chance is None else f"{chance:.0%}",
            f"{reading['words']:.3f}",
            f"{reading['tokens']:.3f}",
            f"{reading['length_mean']:,.0f}",
            percent(reading["clip_ratio"]),
            zones.of(at) if zones else "-",
        )
        rows.append([f"<b>{cell}</b>" for cell in cells] if at == result["temperature"] else cells)
    return table(_HEAD, rows)
