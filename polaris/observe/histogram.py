"""Prompts by pass rate, before and after curation, as text and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

_BAR = 32
_MOST_LABELS = 12
_BEFORE, _AFTER, _INK, _FAINT = "#d9d8d2", "#2a78d6", "#40403c", "#6b6a64"


def lines(before: Sequence[int], after: Sequence[int]) -> list[str]:
    """One line for each of the bins 0/n .. n/n: a bar as long as its share, with `after` as the filled part."""
    samples, largest = len(before) - 1, max(1, *before)
    rows = []
    for k, (size, kept) in enumerate(zip(before, after, strict=True)):
        filled, length = round(_BAR * kept / largest), round(_BAR * size / largest)
        rows.append(f"  {f'{k}/{samples}':>5}  {'█' * filled + '░' * (length - filled):<{_BAR}} {size:>7} -> {kept:>7}")
    return [*rows, f"  {'all':>5}  {'':<{_BAR}} {sum(before):>7} -> {sum(after):>7}"]


def png(before: Sequence[int], after: Sequence[int]) -> bytes:
    """The picture as PNG bytes: what was measured in grey, what is left in blue before it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    samples, largest = len(before) - 1, max(1, *before)
    figure = Figure(figsize=(8, 4.2), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1), facecolor="white")
    axes = figure.subplots()
    axes.set_title("Prompts by difficulty", fontsize=13, fontweight="bold", loc="left")
    for sizes, colour, name in ((before, _BEFORE, "measured"), (after, _AFTER, "left after curation")):
        axes.bar(range(samples + 1), sizes, width=0.78, color=colour, label=f"{name}: {sum(sizes):,}")
    if samples <= _MOST_LABELS:
        for k, (size, kept) in enumerate(zip(before, after, strict=True)):
            text = f"{size:,}" if kept == size else f"{size:,}\n→ {kept:,}"
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            axes.annotate(text, (k, size), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8, color=_FAINT, bbox=box)
    axes.set_ylim(0, 1.15 * largest)
    ticks = range(0, samples + 1, 1 + samples // (_MOST_LABELS + 1))
    axes.set_xticks(ticks, [f"{k}/{samples}" for k in ticks])
    axes.set_xlabel("solved responses  (hard → easy)", color=_FAINT)
    axes.set_ylabel("prompts", color=_FAINT)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e5e4de", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_FAINT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9c8c0")
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
