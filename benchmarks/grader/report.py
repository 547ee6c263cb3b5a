"""What each part of the benchmark hands back, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`text` is Markdown below `title`; `data` the same figures for the JSON."""

    title: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def listing(title: str, items: Sequence[str], most: int = 40) -> str:
    """A list below a title, "" for none."""
    if not items:
        return ""
    shown = [f"- {item}" for item in items[:most]] + ([f"- and {len(items) - most} more"] if len(items) > most else [])
    return "\n".join([f"\n\n{title}:\n", *shown])


def code(text: str, most: int = 90) -> str:
    """The text as inline code, cut to `most` characters."""
    text = text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
    return "`" + text.replace("`", "'").replace("\n", " ").replace("\x00", "\\0") + "`"


def _cell(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell).replace("|", "\\|")
