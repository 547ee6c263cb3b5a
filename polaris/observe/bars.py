"""Bar charts as SVG text, in the measures of `polaris.observe.curves`; colours are CSS classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polaris.observe.curves import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Axes, grid, svg

_MOST_LABELS = 12
_ROOM = 1.15
"""Height of the chart in heights of its tallest bar, for the numbers above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """`parts` are CSS class and size, from the bottom up; `front` is drawn over them; `notes` are lines above the bar."""

    label: str
    parts: Sequence[tuple[str, float]]
    front: tuple[str, float] | None = None
    notes: Sequence[str] = ()


def bar_chart(bars: Sequence[Bar], name: str, *, percent: bool = False) -> str:
    """Bars from left to right; where they are many, only some have their labels."""
    tallest = max(sum(size for _, size in bar.parts) for bar in bars) or 1.0
    axes = Axes(0, len(bars), 0.0, _ROOM * tallest)
    body, stride = grid(axes, percent), 1 + len(bars) // (_MOST_LABELS + 1)
    for index, bar in enumerate(bars):
        bottom = 0.0
        for css, size in bar.parts:
            body.append(_rect(axes, index, css, bottom, bottom + size, 0.76))
            bottom += size
        if bar.front:
            body.append(_rect(axes, index, bar.front[0], 0.0, bar.front[1], 0.76))
        middle = axes.x(index + 0.5)
        if index % stride == 0:
            body.append(f'<text class="tick middle" x="{middle:.1f}" y="{HEIGHT - BOTTOM + 15}">{bar.label}</text>')
        for line, text in enumerate(reversed(bar.notes) if stride == 1 else ()):
            body.append(f'<text class="tick middle" x="{middle:.1f}" y="{axes.y(bottom) - 4 - 12 * line:.1f}">{text}</text>')
    body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    return svg(body, name)


def _rect(axes: Axes, index: int, css: str, low: float, high: float, width: float) -> str:
    x = axes.x(index + (1 - width) / 2)
    height = axes.y(low) - axes.y(high)
    return f'<rect class="{css}" x="{x:.1f}" y="{axes.y(high):.1f}" width="{axes.x(width) - LEFT:.1f}" height="{height:.1f}"/>'
