"""Line and area charts as SVG text. Colours are CSS classes (`s0` to `s5`), so that the page decides on light and dark."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from polaris.observe.run_files import Span

Points = list[tuple[int, float | None]]
"""(step, value) in the order of the steps; None where the value was not finite."""

WIDTH, HEIGHT = 420, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 20, 24
MARKERS_UP_TO = 40
SMOOTH_FROM = 40
_ROOM_FOR_NAME = 50
"""Width from which a stage has room for more than its number."""


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Axes:
    """The drawn range of steps and values."""

    first: float
    last: float
    low: float
    high: float

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def line_chart(curves: Sequence[Curve], *, percent: bool = False, stages: Sequence[Span] = ()) -> str:
    """Curves over the step; from `SMOOTH_FROM` points on, the raw curve is faint under its running mean. Two stages or more are marked."""
    axes = _axes([curve.points for curve in curves], from_zero=percent)
    body = [_line(axes, index, curve) for index, curve in enumerate(curves)]
    return _svg(axes, _bands(axes, stages) + body, curves, percent)


def area_chart(curves: Sequence[Curve], *, stages: Sequence[Span] = ()) -> str:
    """Curves stacked on each other; a step that a curve does not have counts as 0."""
    steps = sorted({step for curve in curves for step, _ in curve.points})
    base = dict.fromkeys(steps, 0.0)
    layers = []
    for curve in curves:
        top = {step: base[step] + max(0.0, value or 0.0) for step, value in {**dict.fromkeys(steps, 0.0), **dict(curve.points)}.items()}
        layers.append((dict(base), top))
        base = top
    axes = _axes([list(base.items())], from_zero=True)
    body = [_area(axes, index, *layer) for index, layer in enumerate(layers)]
    return _svg(axes, _bands(axes, stages) + body, curves, percent=False)


def running_mean(points: Points, window: int) -> Points:
    """Mean over the `window` newest finite values up to each step."""
    finite = [(step, value) for step, value in points if value is not None]
    values = [value for _, value in finite]
    means = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [(step, sum(part) / len(part)) for (step, _), part in zip(finite, means, strict=True)]


def label(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g}%"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+0", "e")
    return f"{value / 1000:g}k" if abs(value) >= 1e4 else f"{value:.4g}"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], about so many of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    stride = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [index * stride for index in range(math.ceil(low / stride - 1e-9), math.floor(high / stride + 1e-9) + 1)]


def _axes(every: Sequence[Points], *, from_zero: bool) -> Axes:
    steps = [step for points in every for step, _ in points]
    values = [value for points in every for _, value in points if value is not None] or [0.0]
    low, high = min(values), max(values)
    if from_zero or low > 0 > low - (high - low):
        low = min(0.0, low)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    first, last = min(steps), max(steps)
    return Axes(first, last if last > first else first + 1, low if low == 0 else low - room, high + room)


def _bands(axes: Axes, stages: Sequence[Span]) -> list[str]:
    """Every second stage on a darker ground, each with its name."""
    marks = []
    for stage in stages if len(stages) > 1 else ():
        left, right = axes.x(max(stage.first, axes.first)), axes.x(min(stage.last, axes.last))
        if right <= left:
            continue
        if stage.number % 2 == 0:
            marks.append(f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>')
        name = f"stage {stage.number}" if right - left >= _ROOM_FOR_NAME else str(stage.number)
        marks.append(f'<line class="bound" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP - 14}" y2="{HEIGHT - BOTTOM}"/>')
        marks.append(f'<text class="tick" x="{left + 4:.1f}" y="{TOP - 6}">{name}</text>')
    return marks


def _line(axes: Axes, index: int, curve: Curve) -> str:
    finite = [(step, value) for step, value in curve.points if value is not None]
    if len(finite) >= SMOOTH_FROM:
        mean = running_mean(curve.points, max(2, len(finite) // 20))
        return _path(axes, curve.points, f"s{index} raw") + _path(axes, mean, f"s{index}")
    dots = finite if len(finite) <= MARKERS_UP_TO else []
    circles = (f'<circle class="s{index}" cx="{axes.x(step):.1f}" cy="{axes.y(value):.1f}" r="2.5"/>' for step, value in dots)
    return _path(axes, curve.points, f"s{index}") + "".join(circles)


def _path(axes: Axes, points: Points, css_class: str) -> str:
    commands, pen = [], "M"
    for step, value in points:
        if value is None:
            pen = "M"
        else:
            commands.append(f"{pen}{axes.x(step):.1f} {axes.y(value):.1f}")
            pen = "L"
    return f'<path class="{css_class}" d="{"".join(commands)}"/>'


def _area(axes: Axes, index: int, base: dict[int, float], top: dict[int, float]) -> str:
    there = [f"{axes.x(step):.1f} {axes.y(top[step]):.1f}" for step in sorted(top)]
    back = [f"{axes.x(step):.1f} {axes.y(base[step]):.1f}" for step in sorted(base, reverse=True)]
    return f'<path class="s{index} area" d="M{"L".join(there + back)}Z"/>'


def _svg(axes: Axes, body: list[str], curves: Sequence[Curve], percent: bool) -> str:
    marks = grid(axes, percent)
    for step in ticks(axes.first, axes.last, 5):
        if step == int(step):
            marks.append(f'<text class="tick middle" x="{axes.x(step):.1f}" y="{HEIGHT - 6}">{int(step)}</text>')
    data = json.dumps({"first": axes.first, "last": axes.last, "percent": percent, "curves": [[c.name, c.points] for c in curves]})
    cursor = f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/>'
    name = f"{', '.join(curve.name for curve in curves)} over the step; the arrow keys read the values"
    return svg([*marks, *body, cursor], name, tabindex="0", data_chart=data)


def grid(axes: Axes, percent: bool) -> list[str]:
    """Horizontal lines with the values they stand for."""
    marks = []
    for value in ticks(axes.low, axes.high, 5):
        y = axes.y(value)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{label(value, percent)}</text>')
    return marks


def svg(body: Sequence[str], name: str, **attributes: str) -> str:
    """A picture of the size of a chart; `name` says to a screen reader what it shows."""
    more = "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}"{more}>{"".join(body)}</svg>'
