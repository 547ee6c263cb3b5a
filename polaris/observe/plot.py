"""`report.png`: accuracy, reward and response length of a run in one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polaris.observe.curves import SMOOTH_FROM, Points, running_mean
from polaris.observe.run_files import Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = "#f1f0ea"
"""The ground of every second stage."""
_PANELS = (
    ("accuracy", (("eval/accuracy", "held-out accuracy", "#2a78d6"), ("eval/pass_at_k", "pass@k", "#8f8d86"))),
    ("training reward", (("reward/mean", "mean reward", "#1baf7a"),)),
    ("response length (tokens)", (("response/length_mean", "mean", "#eb6834"),)),
)


def points(records: Sequence[dict[str, Any]], key: str) -> Points:
    """(step, value) of every record that holds `key`."""
    return [(record["step"], record[key]) for record in records if key in record]


def png(records: Sequence[dict[str, Any]], title: str, stages: Sequence[Span] = ()) -> bytes:
    """The picture as PNG bytes; a panel without values says so. Two stages or more are marked, as in the page."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(13, 4.2), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1), facecolor="white")
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.012, ha="left", parse_math=False)
    for axes, (name, curves) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        _draw(axes, records, curves)
        _mark(axes, stages)
        axes.set_title(name, fontsize=11, loc="left", color="#40403c")
        axes.set_xlabel("step; stages at the top" if len(stages) > 1 else "step", color="#6b6a64")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#e5e4de", linewidth=0.8)
        axes.tick_params(length=0, colors="#6b6a64")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#c9c8c0")
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _mark(axes: Axes, stages: Sequence[Span]) -> None:
    """Every second stage on a darker ground, each with its number at its start."""
    for stage in stages if len(stages) > 1 else ():
        axes.axvline(stage.first, color="#c9c8c0", linewidth=0.8, zorder=0)
        if stage.number % 2 == 0:
            axes.axvspan(stage.first, stage.last, color=BAND, linewidth=0, zorder=0)
        above = axes.get_xaxis_transform()
        axes.text(stage.first, 1.0, f" {stage.number}", fontsize=8, color="#6b6a64", ha="left", va="top", transform=above)


def _draw(axes: Axes, records: Sequence[dict[str, Any]], curves: Sequence[tuple[str, str, str]]) -> None:
    drawn = 0
    for key, name, colour in curves:
        series: Points = [(step, value) for step, value in points(records, key) if value is not None]
        if not series:
            continue
        drawn += 1
        if len(series) >= SMOOTH_FROM:
            axes.plot(*zip(*series, strict=True), color=colour, linewidth=1, alpha=0.3)
            series = running_mean(series, max(2, len(series) // 20))
            axes.plot(*zip(*series, strict=True), color=colour, linewidth=2, label=name)
        else:
            axes.plot(*zip(*series, strict=True), color=colour, linewidth=2, marker="o", markersize=4, label=name)
    if drawn > 1:
        axes.legend(frameon=False, fontsize=9)
    if not drawn:
        axes.text(0.5, 0.5, "no values in this run", ha="center", va="center", transform=axes.transAxes, color="#6b6a64")
        axes.set_yticks([])
