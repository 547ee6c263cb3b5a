"""Names and values in messages of one or two lines: the nearest known name, and values that are cut."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_LONGEST = 60
_MOST = 8


def nearest(name: str, known: Collection[str], likeness: float = 0.6) -> str | None:
    """The known name that `name` was most probably meant to be; `likeness`, up to 1, is the least that counts."""
    close = get_close_matches(name, known, n=1, cutoff=likeness)
    return close[0] if close else None


def instead(name: str, known: Collection[str], where: str) -> str:
    """What to write in the place of an unknown name: the nearest, or one of a few, or what `where` lists."""
    close = nearest(name, known)
    if close:
        return f"did you mean {close!r}?"
    return f"there is {', '.join(known)}" if 0 < len(known) <= _MOST else f"{where} lists what there is"


def shown(value: object) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
