"""The picture of a temperature probe: accuracy and diversity over temperature, on the zones."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polaris.observe.zones_chart import zone_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED = "#40403c", "#6b6a64"
_TICKS = 12
"""Most readings that are ticks of their own."""
_ACCURACY, _DIVERSITY = "#2a78d6", "#eb6834"
_ZONES = (("robust generation", "#dcf2e7"), ("controlled exploration", "#fdf0d0"), ("performance collapse", "#f9dfda"))


def png(result: Mapping[str, Any]) -> bytes:
    """PNG bytes of a result of `polaris.recipe.temperature`; without zones (a retune) the diversity to restore is drawn instead."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import PercentFormatter

    readings = result["readings"]
    temperatures = [values["temperature"] for values in readings]
    figure = Figure(figsize=(7.5, 6), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1), facecolor="white")
    figure.suptitle(_title(result), fontsize=13, fontweight="bold", x=0.02, ha="left", parse_math=False)
    top, bottom = figure.subplots(2, 1, sharex=True)
    low, high = ([values[f"accuracy_{end}"] for values in readings] for end in ("low", "high"))
    top.fill_between(temperatures, low, high, color=_ACCURACY, alpha=0.18, linewidth=0)
    top.plot(temperatures, [values["accuracy"] for values in readings], color=_ACCURACY, linewidth=2, marker="o", markersize=4)
    samples = result["settings"]["samples_per_prompt"]
    top.set_title(f"accuracy (avg@{samples}, 95% interval)", fontsize=11, loc="left", color=_INK)
    top.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    kind = result["settings"]["diversity"]
    bottom.plot(temperatures, [values[kind] for values in readings], color=_DIVERSITY, linewidth=2, marker="o", markersize=4)
    bottom.set_title(f"diversity (share of distinct 4-grams of {kind})", fontsize=11, loc="left", color=_INK)
    bottom.set_xlabel("temperature", color=_MUTED)
    top.set_ylim(top=min(1.0, top.get_ylim()[1]))
    if len(temperatures) <= _TICKS:
        bottom.set_xticks(temperatures)
    for axes in (top, bottom):
        _frame(axes)
        axes.axvline(result["temperature"], color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
    if "zones" in result:
        _shade(figure, (top, bottom), result["zones"], temperatures[0])
    if "target" in result:
        bottom.axhline(result["target"], color=_MUTED, linewidth=1.2, linestyle=(0, (1, 2)), label="to be restored")
        bottom.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _title(result: Mapping[str, Any]) -> str:
    what = {"probe": "Initial temperature", "retune": "Retuned temperature"}.get(result["source"], "Temperature")
    return f"{what} {result['temperature']:g}, {result['settings']['prompts']} prompts"


def _frame(axes: Axes) -> None:
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.grid(axis="y", color="#e5e4de", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9c8c0")


def _shade(figure: Figure, panels: Sequence[Axes], zones: Mapping[str, Any], coolest: float) -> None:
    """Zones behind the curves."""
    from matplotlib.patches import Patch

    first, last = panels[0].get_xlim()
    edges = zone_edges(zones, first, last, coolest)
    for axes in panels:
        axes.set_xlim(first, last)
        for (_, colour), left, right in zip(_ZONES, edges, edges[1:], strict=False):
            axes.axvspan(left, right, color=colour, linewidth=0, zorder=0)
    patches = [Patch(color=colour, label=name) for name, colour in _ZONES]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=_INK)
