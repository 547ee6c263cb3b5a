"""A temperature probe as SVG: a reading over the temperature, on the three zones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.observe.curves import BOTTOM, HEIGHT, TOP, WIDTH, Axes, grid, svg
from polaris.observe.run_files import Result

ZONES = (("zone0", "robust generation"), ("zone1", "controlled exploration"), ("zone2", "performance collapse"))
"""CSS classes and names, from cool to hot."""
_MOST_LABELS = 10
_LABEL_WIDTH = 60


def zones_chart(result: Result, key: str, name: str, colour: str, *, percent: bool) -> str:
    """The readings' `key` with its interval, where `key_low` and `key_high` are there, and the chosen temperature as a line.

    `result` is one of `polaris.recipe.temperature`; without zones (a retune) the ground stays empty.
    """
    readings = sorted(result["readings"], key=lambda reading: reading["temperature"])
    temperatures = [reading["temperature"] for reading in readings]
    tops = [reading.get(f"{key}_high", reading[key]) for reading in readings]
    margin = 0.04 * (temperatures[-1] - temperatures[0]) or 0.1
    axes = Axes(temperatures[0] - margin, temperatures[-1] + margin, 0.0, 1.1 * max(tops) or 1.0)
    body = _zones(axes, result.get("zones"), temperatures[0]) + grid(axes, percent)
    if f"{key}_low" in readings[0]:
        body.append(_interval(axes, readings, key, colour))
    line = "L".join(f"{axes.x(reading['temperature']):.1f} {axes.y(reading[key]):.1f}" for reading in readings)
    body.append(f'<path class="{colour}" d="M{line}"/>')
    for reading in readings:
        body.append(f'<circle class="{colour}" cx="{axes.x(reading["temperature"]):.1f}" cy="{axes.y(reading[key]):.1f}" r="2.5"/>')
    for temperature in temperatures[:: 1 + len(temperatures) // (_MOST_LABELS + 1)]:
        body.append(f'<text class="tick middle" x="{axes.x(temperature):.1f}" y="{HEIGHT - BOTTOM + 15}">{temperature:g}</text>')
    body.append(_chosen(axes, result["temperature"]))
    return svg(body, name)


def zone_edges(zones: Result, first: float, last: float, coolest: float) -> tuple[float, float, float, float]:
    """Where the zones begin, and where the last one ends, on a picture from `first` to `last`.

    Collapse is drawn from half-way between the last temperature before it and the first one in it.
    """
    collapse = last if zones["collapse_from"] is None else (zones["exploration_to"] + zones["collapse_from"]) / 2
    return first if zones["robust_from"] == coolest else zones["robust_from"], zones["robust_to"], collapse, last


def _zones(axes: Axes, zones: Result | None, coolest: float) -> list[str]:
    if zones is None:
        return []
    edges = zone_edges(zones, axes.first, axes.last, coolest)
    height = HEIGHT - TOP - BOTTOM
    return [
        f'<rect class="{css}" x="{axes.x(left):.1f}" y="{TOP}" width="{axes.x(right) - axes.x(left):.1f}" height="{height}"/>'
        for (css, _), left, right in zip(ZONES, edges, edges[1:], strict=False)
    ]


def _interval(axes: Axes, readings: Sequence[dict[str, Any]], key: str, colour: str) -> str:
    there = [f"{axes.x(reading['temperature']):.1f} {axes.y(reading[f'{key}_high']):.1f}" for reading in readings]
    back = [f"{axes.x(reading['temperature']):.1f} {axes.y(reading[f'{key}_low']):.1f}" for reading in reversed(readings)]
    return f'<path class="{colour} area interval" d="M{"L".join(there + back)}Z"/>'


def _chosen(axes: Axes, temperature: float) -> str:
    x = axes.x(temperature)
    anchor = "end" if x > WIDTH - _LABEL_WIDTH else "middle"
    return (
        f'<line class="chosen" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick {anchor}" x="{x:.1f}" y="{TOP - 6}">chosen {temperature:g}</text>'
    )
