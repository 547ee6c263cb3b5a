"""Values of a run as HTML text. What a model wrote passes through here and nowhere else."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from html import escape

_HIDDEN = frozenset({"\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))})
"""Characters that turn the direction of the text around them."""


def safe(value: object) -> str:
    """Text or attribute text. Control characters, bidirectional ones too, and lone surrogates are spelt out, as in `[U+202E]`."""
    text = str(value)
    if text.isprintable():
        return escape(text)
    return escape("".join(map(_visible, text)))


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def interval(number: dict[str, float]) -> str:
    """mean, low and high of a share."""
    return f'{number["mean"]:.1%} <span class="dim">[{number["low"]:.1%}, {number["high"]:.1%}]</span>'


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def note(text: str) -> str:
    """`text` is markup."""
    return f'<p class="dim">{text}</p>'


def figures(*pictures: str) -> str:
    """Pictures of `polaris.observe.charts` as cards."""
    return f'<div class="charts">{"".join(f"<figure>{picture}</figure>" for picture in pictures)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of markup that scrolls within itself where the page is too narrow for it."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide-table" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"


@lru_cache(4096)
def _visible(letter: str) -> str:
    shown = letter in "\n\t" or (letter not in _HIDDEN and unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"))
    return letter if shown else f"[U+{ord(letter):04X}]"
