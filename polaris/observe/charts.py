"""Every picture of a run as a matplotlib figure, each from one function; `svg` and `png` write one.

matplotlib is imported here and nowhere else; who need not draw imports this file where it draws.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import nan
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from polaris.observe.assets import LIGHT
from polaris.observe.phrases import count
from polaris.observe.run_files import Result, Span

Points = Sequence[tuple[int, float | None]]
"""(step, value) in the order of the steps; None where the value was not finite."""

SMOOTH_FROM = 40
"""Finite values from which a curve is faint under its running mean; fewer have dots."""
_MOST_LABELS = 12
"""Most bars, or temperatures, that each have a label."""
_SHARE_FOR_NAME = 0.15
"""Share of the picture's width from which a stage has room for more than its number."""
_WIDTH, _HEIGHT = 5.4, 3.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.7, 0.15, 0.52, 0.46
_LINE = 0.4
"""A panel, the room around its axes, and a line of text above or below all panels, in inches. A unit of SVG is 1/72 inch."""
_RESTORED = "to be restored"
_OVER_CURVES, _OVER_BARS = 0.12, 0.2
"""Free height above the highest curve, for names of stages, and above the tallest bar, for what it says; shares of the height below."""
_NOISE = 1e-6
"""What stays below it is rounding, and is drawn as 0."""

_styled = rc_context(
    {
        "figure.facecolor": "white",
        "figure.titlesize": 12,
        "figure.titleweight": "bold",
        "savefig.dpi": 200,
        "axes.facecolor": "none",
        "axes.edgecolor": LIGHT["edge"],
        "axes.labelcolor": LIGHT["dim"],
        "axes.titlecolor": LIGHT["ink"],
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.xmargin": 0.02,
        "axes.ymargin": _OVER_CURVES,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=[LIGHT[f"c{index}"] for index in range(6)]),
        "grid.color": LIGHT["rule"],
        "lines.linewidth": 2,
        "lines.markersize": 4,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.color": LIGHT["dim"],
        "ytick.color": LIGHT["dim"],
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.labelcolor": LIGHT["dim"],
        "legend.handlelength": 1,
        "legend.columnspacing": 1,
        "text.color": LIGHT["ink"],
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "polaris",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves over the step, by name; those without a finite value are left out. A `percent` is drawn from 0 on."""

    title: str
    curves: Mapping[str, Points]
    percent: bool = False


@_styled
def lines(charts: Sequence[Chart], stages: Sequence[Span] = (), title: str = "") -> Figure:
    """Charts side by side. A chart without values says so."""
    figure, panels = _panels(1, len(charts), title)
    for axes, chart in zip(panels, charts, strict=True):
        for name, points in chart.curves.items():
            _line(axes, name, points)
        if not chart.curves:
            axes.text(0.5, 0.5, "no values in this run", ha="center", va="center", transform=axes.transAxes, color=LIGHT["dim"])
            axes.set_yticks([])
        _over_steps(axes, chart, stages)
    return figure


@_styled
def areas(chart: Chart, stages: Sequence[Span] = ()) -> Figure:
    """Curves stacked on each other; a step that a curve does not have counts as 0."""
    figure, (axes,) = _panels()
    steps = sorted({step for points in chart.curves.values() for step, _ in points})
    values = [dict(points) for points in chart.curves.values()]
    axes.stackplot(steps, [[max(0.0, layer.get(step) or 0.0) for step in steps] for layer in values], labels=list(chart.curves))
    _over_steps(axes, chart, stages)
    return figure


@_styled
def difficulty(before: Sequence[int], after: Sequence[int] | None) -> Figure:
    """Prompts that 0/n .. n/n responses solve: what was measured in grey, and what curation has left before it."""
    figure, (axes,) = _panels()
    bars = axes.bar(range(len(before)), before, color=LIGHT["measured"], label=f"measured: {sum(before):,}")
    if after is not None:
        axes.bar(range(len(before)), after, color=LIGHT["c0"], label=f"left after curation: {sum(after):,}")
    if len(before) <= _MOST_LABELS:
        left = before if after is None else after
        notes = [count(size) if size == kept else f"{count(size)}\n\u2192 {count(kept)}" for size, kept in zip(before, left, strict=True)]
        axes.bar_label(bars, notes, padding=2, fontsize=8, color=LIGHT["dim"])
    axes.set_ylim(0, (1 + _OVER_BARS) * max(1, *before))
    ticks = range(0, len(before), 1 + len(before) // (_MOST_LABELS + 1))
    axes.set_xticks(ticks, [f"{k}/{len(before) - 1}" for k in ticks])
    axes.yaxis.set_major_locator(_whole())
    _label(axes, "Prompts by difficulty", "solved responses (hard to easy)", "prompts")
    return figure


@_styled
def lengths(title: str, buckets: Sequence[tuple[float, float, float]], limit: int) -> Figure:
    """Responses, correct ones and cut off ones of equal parts of the limit; above each part its accuracy."""
    figure, (axes,) = _panels()
    at = range(len(buckets))
    bottom = np.zeros(len(buckets))
    sizes, correct, short = np.array(buckets, dtype=float).T
    cut = np.minimum(short, sizes - correct)
    parts = {"correct": correct, "wrong": sizes - correct - cut, "cut": cut}
    for name, part in parts.items():
        bars = axes.bar(at, part, bottom=bottom, color=LIGHT[name], label="cut off at the limit" if name == "cut" else name)
        bottom += part
    notes = [f"{right / size:.0%}" if size else "" for size, right, _ in buckets]
    axes.bar_label(bars, notes, padding=2, fontsize=8, color=LIGHT["dim"])
    axes.set_ylim(0, (1 + _OVER_BARS) * max(1, *sizes))
    axes.set_xticks(at, [count((k + 1) * limit / len(buckets)) for k in at])
    _label(axes, title, "tokens at most", "responses")
    return figure


@_styled
def temperature(result: Result) -> Figure:
    """Accuracy and diversity of a result of `polaris.recipe.temperature` over the temperature, on the zones, with the one chosen.

    Without zones (a retune) the diversity to restore is drawn instead.
    """
    readings = sorted(result["readings"], key=lambda reading: reading["temperature"])
    settings, kind = result["settings"], result["settings"]["diversity"]
    temperatures = [reading["temperature"] for reading in readings]
    what = {"probe": "Initial temperature", "retune": "Retuned temperature"}.get(result["source"], "Temperature")
    title = f"{what} {result['temperature']:g}, {settings['prompts']} prompts"
    figure, (top, bottom) = _panels(2, 1, title, _LINE * ("zones" in result))
    low, high = ([reading[f"accuracy_{end}"] for reading in readings] for end in ("low", "high"))
    top.fill_between(temperatures, low, high, color=LIGHT["c0"], alpha=0.2, linewidth=0)
    for axes, key, colour in ((top, "accuracy", "c0"), (bottom, kind, "c1")):
        axes.plot(temperatures, [reading[key] for reading in readings], color=LIGHT[colour], marker="o")
        axes.axvline(result["temperature"], color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
    if "zones" in result:
        _shade(figure, result["zones"], temperatures[0])
    if "target" in result:
        bottom.axhline(result["target"], color=LIGHT["dim"], linewidth=1.2, linestyle=(0, (1, 2)), label=_RESTORED)
    top.yaxis.set_major_formatter(_percent)
    titles = "Accuracy (95% interval)", f"Diversity (distinct 4-grams of {kind}, in pairs)"
    for axes, title in zip((top, bottom), titles, strict=True):
        axes.set_ylim(0, min(1.0, axes.get_ylim()[1]))
        if len(temperatures) <= _MOST_LABELS:
            axes.set_xticks(temperatures, [f"{at:g}" for at in temperatures])
        _label(axes, title, "temperature")
    return figure


@_styled
def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@_styled
def svg(figure: Figure, chart: Chart | None = None) -> str:
    """Markup for the page: text stays text, and colours are the page's own, light or dark. The script reads the values of `chart`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", facecolor="none", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    _, body = buffer.getvalue().split("</defs>", 1)  # after matplotlib's own style sheet
    for pattern, new in _OF_THE_PAGE:
        body = pattern.sub(new, body)
    width, height = 72 * figure.get_size_inches()
    facts = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(_name(figure))}"'
    if chart is None:
        return f"<svg {facts}>{body}"
    (axes,) = figure.axes
    box, (first, last) = axes.get_position(), axes.get_xlim()
    data = {"left": box.x0 * width, "right": box.x1 * width, "first": first, "last": last, "percent": chart.percent}
    cursor = f'<line class="cursor" y1="{height * (1 - box.y1):.1f}" y2="{height * (1 - box.y0):.1f}" visibility="hidden"/>'
    data_chart = escape(json.dumps(data | {"curves": list(chart.curves.items())}))
    return f'<svg {facts} tabindex="0" data-chart="{data_chart}">{body.replace("</svg>", f"{cursor}</svg>")}<output></output>'


def running_mean(points: Points, window: int) -> list[tuple[int, float]]:
    """Mean over the `window` newest finite values up to each step."""
    finite = [(step, value) for step, value in points if value is not None]
    values = [value for _, value in finite]
    means = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [(step, sum(part) / len(part)) for (step, _), part in zip(finite, means, strict=True)]


def _attributes(style: re.Match[str]) -> str:
    """The page's policy admits no style attribute. The font is the page's."""
    pairs = (pair.split(": ", 1) for pair in style[1].split("; "))
    return "".join(f' {name}="{value}"' for name, value in pairs if name != "font-family")


_NAMES: dict[str, str] = {colour: name for name, colour in LIGHT.items()}
_OF_THE_PAGE: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r' style="([^"]*)"'), _attributes),
    (re.compile(r' id="[\w.]+_\d+"'), ""),  # of groups, and the same in every picture
    (re.compile("|".join(_NAMES)), lambda colour: f"var(--{_NAMES[colour[0]]})"),
    (re.compile(r"\s*\n\s*"), " "),
)


def _name(figure: Figure) -> str:
    """What a screen reader says: titles and names of the curves."""
    panels = ((axes.get_title("left"), ", ".join(axes.get_legend_handles_labels()[1])) for axes in figure.axes)
    return "; ".join(filter(None, (figure.get_suptitle(), *(": ".join(filter(None, panel)) for panel in panels))))


def _panels(rows: int = 1, columns: int = 1, title: str = "", below: float = 0) -> tuple[Figure, list[Axes]]:
    """Panels of one size, the title of all above them, and room below."""
    width, height, above = columns * _WIDTH, rows * _HEIGHT + below, _LINE * bool(title)
    figure = Figure(figsize=(width, height + above))
    if title:
        figure.suptitle(title, x=0.1 / width, y=1 - 0.1 / (height + above), ha="left")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        top=(height - _TOP) / (height + above),
        bottom=(_BOTTOM + below) / (height + above),
        wspace=(_LEFT + _RIGHT) / (_WIDTH - _LEFT - _RIGHT),
        hspace=(_TOP + _BOTTOM) / (_HEIGHT - _TOP - _BOTTOM),
    )
    for one in axes:
        one.yaxis.set_major_formatter("{x:,g}")
    return figure, axes


def _line(axes: Axes, name: str, points: Points) -> None:
    steps, values = [step for step, _ in points], [nan if value is None else value for _, value in points]
    finite = sum(value is not None for _, value in points)
    if finite < SMOOTH_FROM:
        axes.plot(steps, values, marker="o", label=name)
        return
    (raw,) = axes.plot(steps, values, linewidth=1, alpha=0.3)
    axes.plot(*zip(*running_mean(points, max(2, finite // 20)), strict=True), color=raw.get_color(), label=name)


def _over_steps(axes: Axes, chart: Chart, stages: Sequence[Span]) -> None:
    """Ticks, title and, of two stages or more, every second one on a darker ground."""
    low, high = axes.dataLim.intervaly
    if max(abs(low), abs(high)) < _NOISE:
        axes.set_ylim(-1 if low < 0 else 0, 1)
    elif (chart.percent and chart.curves) or 0 < low < high - low:
        axes.set_ylim(0, (1 + _OVER_CURVES) * high or None)
    if chart.percent:
        axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_locator(_whole())
    for stage in stages if len(stages) > 1 else ():
        axes.axvline(stage.first, color=LIGHT["edge"], linewidth=0.8, zorder=0)
        if stage.number % 2 == 0:
            axes.axvspan(stage.first, stage.last, color=LIGHT["band"], linewidth=0, zorder=0)
        name = "stage " if stage.last - stage.first >= _SHARE_FOR_NAME * stages[-1].last else ""
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (3, -2), "textcoords": "offset points", "va": "top"}
        axes.annotate(f"{name}{stage.number}", (stage.first, 1), fontsize=8, color=LIGHT["dim"], **place)
    _label(axes, chart.title, "step")


def _label(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """The title, the legend below it if there is something to tell apart, and names of the axes."""
    _, names = axes.get_legend_handles_labels()
    axes.set_title(title, pad=20)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if len(names) > 1 or names == [_RESTORED]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, borderaxespad=0.3, ncols=len(names))


def _whole() -> MaxNLocator:
    return MaxNLocator(6, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)


def _percent(value: float, _: float) -> str:
    return f"{100 * value:.3g}%"


def _shade(figure: Figure, zones: Result, coolest: float) -> None:
    """Zones behind the curves. Collapse begins half-way between the last temperature before it and the first one in it."""
    names = {"zone0": "robust generation", "zone1": "controlled exploration", "zone2": "performance collapse"}
    first, last = figure.axes[0].get_xlim()
    collapse = last if zones["collapse_from"] is None else (zones["exploration_to"] + zones["collapse_from"]) / 2
    edges = (first if zones["robust_from"] == coolest else zones["robust_from"], zones["robust_to"], collapse, last)
    for axes in figure.axes:
        axes.set_xlim(first, last)
        for zone, left, right in zip(names, edges, edges[1:], strict=False):
            axes.axvspan(left, right, color=LIGHT[zone], linewidth=0, zorder=0)
    patches = [Patch(color=LIGHT[zone], label=name) for zone, name in names.items()]
    figure.legend(handles=patches, loc="lower center", ncols=3)
