"""The structure of an answer above its expressions: lists, sets, tuples, intervals, matrices, unions, relations, units.

`read` takes `respell`ed text to a tree whose leaves are texts of expressions. It never fails: what has no structure is a leaf.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from polaris.reward.number import read_number
from polaris.reward.spelling import tighten
from polaris.reward.units import split_unit


@dataclass(frozen=True, slots=True)
class Leaf:
    """An expression, with the unit that stood behind it ("" for none)."""

    text: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A tuple, point, vector, interval, ratio or row of a matrix; `brackets` are its two delimiters, such as "[)"."""

    brackets: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Unordered:
    """Several values, as a set in braces or a list of all answers; `kind` "union" is one of intervals."""

    items: tuple[Node, ...]
    kind: Literal["values", "set", "union"] = "values"


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation, inequality or chain of them; `sides` has one more item than `signs`, which are among = < <= > >= !=."""

    signs: tuple[str, ...]
    sides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """`name = value`, where the name is a symbol, a function of symbols, a tuple of them, or words; `text` is the value's."""

    name: str
    text: str
    value: Node


Node = Leaf | Ordered | Unordered | Relation | Named

_BEGIN, _END = (rf"\\{word}\{{([pbvBV]?)(?:small)?(?:matrix|array)\}}" for word in ("begin", "end"))
_MATRIX = re.compile(rf"[(\[]?{_BEGIN}(?:\{{[lcr|]*\}})?(.*?){_END}[)\]]?")
_SYSTEM = re.compile(
    r"(?:\\\{)?\\begin\{cases\}(.*?)\\end\{cases\}(?:\\\})?|\\\{\\begin\{(?:array|aligned)\}(?:\{[lcr|]*\})?(.*?)\\end\{(?:array|aligned)\}"
)
_THOUSANDS = re.compile(r"(?<![\d.])[+-]?\$?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!\d)")
_CONJUNCTION = re.compile(r"\\text\{,?(?:and|or)\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;|\\text\{,\}", re.IGNORECASE)
_SIGNS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\equiv": "==", "\\approx": "="}
_SIGN = re.compile(r"\\(?:le|ge|ne|equiv|approx)(?![A-Za-z])|<=|>=|[=<>]")
_SYMBOL = r"(?:[A-Za-z]'*(?:_(?:[A-Za-z0-9]|\\[a-z]+ ?|\{[^{}=<>]{1,24}\}))?|\\[a-zA-Z]+ ?)"
SYMBOL = re.compile(_SYMBOL)
_NAME = re.compile(
    rf"{_SYMBOL}(?:(?:\^\{{-1\}})?\([A-Za-z0-9, ]+\))?|\({_SYMBOL}(?:,{_SYMBOL})+\)|{_SYMBOL}(?:,{_SYMBOL})+|\\text\{{[^{{}}]*\}}"
    r"|m?\\(?:angle|triangle) ?[A-Z]{1,3}|\\overline\{[A-Z]{2}\}|\\frac\{d[A-Za-z]\}\{d[A-Za-z]\}"
    r"|[A-Z]{2,8}|[A-Z][a-z ]{2,39}|[a-z ]{5,40}"
)
_DENIED = re.compile(
    r"\\(?:l?not|neg|n?sim)(?![A-Za-z])|^\W*(?:text\W+)?(?:not|never|wrong|incorrect|anything|everything)\b|\b(?:not|never|but|except)\W*$",
    re.IGNORECASE,
)
_MEMBER = re.compile(rf"{_SYMBOL}\\in(?![A-Za-z]) ?(.*)")
_BUILDER = re.compile(rf"\\\{{{_SYMBOL}(?:\\in ?\(-\\infty,\\infty\))?[|:](.*)\\\}}")
_RATIO = re.compile(r"(?:.*=)?(\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+)")
_CLOCK = re.compile(r"(\d{1,2}:\d\d) ?(?:\\text\{ ?)?([AaPp])\.? ?[Mm]\.?\}?")
_LISTED = re.compile(r"\\text\{([^{}]*(?:\d|,| and | or )[^{}]*)\}")
_UPRIGHT = re.compile(r"\\text\{(.*\\.*)\}")
_LEADING_SIGN = re.compile(r"^\s*(?:=|\\approx(?![A-Za-z]))")
_LETTER_CUP = re.compile(r"(?<=[)\]}])U(?=[(\[\\])")
_SIGNED = re.compile(r"\\(?:pm|mp)(?![A-Za-z]) ?")


def read(text: str) -> Node:
    """The tree of a `respell`ed text."""
    text = _LETTER_CUP.sub(r"\\cup ", tighten(_LEADING_SIGN.sub("", text)))
    for whole in (_MEMBER, _BUILDER, _LISTED, _UPRIGHT):
        if (found := whole.fullmatch(text)) and found[1] and _encloses(f"{{{found[1]}}}", "{", "}"):
            return read(found[1])
    if system := _SYSTEM.fullmatch(text):
        return _system(system[1] or system[2])
    parts = _parts(text)
    if len(parts) > 1:
        return _values(_unnamed([read(part) for part in parts]))
    text = parts[0]
    if clock := _CLOCK.fullmatch(text):
        return Leaf(clock[1], f"{clock[2].lower()}m")
    if ratio := _RATIO.fullmatch(text):
        return Ordered("::", tuple(Leaf(item) for item in ratio[1].split(":")))
    pieces = _split(text, "\\cup")
    if len(pieces) > 1:
        return _union([read(piece) for piece in pieces])
    if text in ("\\emptyset", "\\text{empty set}"):
        return Unordered(())
    return _relation(text) or _bracketed(text) or _signed(text) or _leaf(text)


def _system(rows: str) -> Node:
    """Equations under one brace are a list; a function by cases is a set of (value, condition)."""
    cells = [[read(cell) for cell in row.strip(" ,;").split("&")] for row in rows.replace("&=", "=").split("\\\\") if row.strip()]
    return _values(_unnamed([row[0] if len(row) == 1 else Ordered("", tuple(row)) for row in cells]))


def _parts(text: str) -> list[str]:
    """The items of a list that no brackets hold."""
    if _THOUSANDS.fullmatch(text):
        return [text]
    parts = [part for chunk in _split_all(text, _CONJUNCTION) for part in _split(chunk, ",")]
    parts = [part.strip() for part in parts if part.strip()]
    return parts or [text]


def _values(items: list[Node], kind: Literal["values", "set"] = "values") -> Node:
    """Values without repetition, lists in the list spread out; a single value is itself."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Unordered) and item.kind == "values" else [item]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Unordered(unique, kind)


def _union(items: list[Node]) -> Node:
    if all(isinstance(item, Unordered | Leaf) for item in items):
        return _values([part for item in items for part in (item.items if isinstance(item, Unordered) else (item,))], "set")
    return Unordered(tuple(dict.fromkeys(items)), "union")


def _relation(text: str) -> Node | None:
    """A relation; `name = value` is the value. The name is one symbol, a function, a tuple of them or words that deny nothing."""
    signs, sides = _signs(text)
    if not signs or not all(sides):
        return None
    named = set(signs) == {"="} and _NAME.fullmatch(sides[0]) and not _DENIED.search(sides[0])
    if named and numbers_agree(sides):
        return Named(sides[0], sides[-1], read(sides[-1]))
    if signs == ("=",) and SYMBOL.fullmatch(sides[1]) and read_number(sides[0]):
        return Named(sides[1], sides[0], read(sides[0]))
    return Relation(signs, sides)


def numbers_agree(sides: Sequence[str]) -> bool:
    """Whether the numbers in a chain that ends in one are that one, or round to it: not in `x = 5 = 7`."""
    last = read_number(sides[-1])
    numbers = [number for side in sides[:-1] if (number := read_number(side))]
    return last is None or all(abs(number.value - last.value) <= last.last_place / 2 for number in numbers)


def _unnamed(items: list[Node]) -> list[Node]:
    """`x = 2, x = 3` and `x = 2, 3` are values of one name, which is left out; `x = 2, y = 3` stays."""
    names = {item.name for item in items if isinstance(item, Named)}
    return [item.value if isinstance(item, Named) else item for item in items] if len(names) == 1 else items


def _signs(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = [match for match in _SIGN.finditer(text) if _depth_is_zero(text, match.start())]
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    sides = tuple(text[edges[i] : edges[i + 1]].strip() for i in range(0, len(edges), 2))
    return tuple(_SIGNS.get(match[0], match[0]) for match in found), sides


def _bracketed(text: str) -> Node | None:
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in matrix[2].replace("\\hline", "").split("\\\\") if row.strip()]
        # Bars make a determinant or a norm.
        kind = matrix[1] if matrix[1] in ("v", "V") else ""
        return Ordered(kind, tuple(Ordered("", tuple(read(cell) for cell in row.split("&"))) for row in rows))
    opening = "\\{" if text.startswith("\\{") else text[:1]
    closing = "\\}" if text.endswith("\\}") else text[-1:]
    if opening not in ("(", "[", "\\{") or closing not in (")", "]", "\\}") or not _encloses(text, opening, closing):
        return None
    inner = text[len(opening) : -len(closing)].strip()
    items = _split(inner, ",")
    # `[-36,104]` holds two numbers; `-36,104` alone would be one.
    items = inner.split(",") if len(items) == 1 and _THOUSANDS.fullmatch(inner) else items
    if opening == "\\{":
        return _values([read(item) for item in items], "set") if inner else Unordered(())
    if len(items) == 1:
        return read(inner) if opening + closing == "()" and inner else None
    return Ordered(opening + closing, tuple(read(item) for item in items))


def _signed(text: str) -> Node | None:
    """`a \\pm b` is two values. Several signs may go together or not, so they stay as they are."""
    if len(_SIGNED.findall(text)) != 1:
        return None
    return Unordered(tuple(_leaf(tighten(_SIGNED.sub(sign, text))) for sign in "+-"))


def _leaf(text: str) -> Leaf:
    return Leaf(*split_unit(text.removeprefix("+")))


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators outside of all brackets; commas inside of numbers stay."""
    kept = {index for number in _THOUSANDS.finditer(text) for index in range(*number.span())} if separator == "," else set()
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        depth += _step(text, index)
        if depth == 0 and index not in kept and text.startswith(separator, index):
            parts.append(text[start:index].strip())
            index += len(separator)
            start = index
            continue
        index += 1
    return [*parts, text[start:].strip()]


def _split_all(text: str, pattern: re.Pattern[str]) -> list[str]:
    parts, start = [], 0
    for match in pattern.finditer(text):
        if _depth_is_zero(text, match.start()):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _step(text: str, index: int) -> int:
    """Change of depth at a character; intervals open and close with either bracket, so all kinds count alike."""
    return (text[index] in "([{") - (text[index] in ")]}")


def _depth_is_zero(text: str, end: int) -> bool:
    return sum(_step(text, index) for index in range(end)) == 0


def _encloses(text: str, opening: str, closing: str) -> bool:
    """Whether the first bracket is closed by the last."""
    depth = 0
    for index in range(len(text)):
        depth += _step(text, index)
        if depth == 0 and index < len(text) - 1 and index >= len(opening) - 1:
            return False
    return depth == 0
