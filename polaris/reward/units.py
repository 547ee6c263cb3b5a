"""Units and other words behind a value: `15\\text{ cm}^2`, `100 dollars`, `28%`, `90^\\circ`, `$18.90`."""

from __future__ import annotations

import re

_WORDS = r"[A-Za-z][A-Za-z.\-/ ]*"
_POWER = r"(?:\^\{?-?[0-9]\}?)?"
_TEXT_UNIT = re.compile(rf"(.*[0-9A-Za-z)}}\]%])((?:\\(?:cdot )?|/)?\\text\{{\(?({_WORDS}(?:\^?[0-9])?)\)?\}}{_POWER}(?:(?:/|\\cdot )?\\text\{{{_WORDS}\}}{_POWER})*)")
_PLAIN_UNIT = re.compile(rf"((?:[+-]?\$?[0-9][0-9,]*(?:\.[0-9]+)?|.*\}}|.*\)))( ?{_WORDS}{_POWER})")
_HEDGE = re.compile(r"\b(?:or|and|but|maybe|not|perhaps|possibly|any|either|else)\b", re.IGNORECASE)
_DEGREES = re.compile(r"(.+?)\^(?:\{\\circ ?\}|\\circ)(?: ?[CFK]| ?\\text\{[CFK]\})?")
_PERCENT = re.compile(r"(.+?)(?:%|\\text\{(?:percent|per cent)\}| ?percent)")
_SAME = {
    "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm",
    "inch": "in", "inches": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l", "joule": "j", "watt": "w", "newton": "n", "volt": "v",
    "kelvin": "k", "pound": "lb", "ounce": "oz", "dollar": "$", "degree": "deg",
}  # fmt: skip
KNOWN = frozenset(_SAME.values()) | {"%", "mph", "kmh", "hz", "pa", "ev", "mol", "ms", "c", "day", "week", "month", "year", "cent", "unit"}
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")


def split_unit(text: str) -> tuple[str, str]:
    """The value and its unit in one spelling; ("text", "") where there is none. Words that hedge are no unit."""
    if text.startswith("$") and len(text) > 1:
        return text[1:], "$"
    if text.startswith(("-$", "+$")) and len(text) > 2:
        return text[0] + text[2:], "$"
    if found := _PERCENT.fullmatch(text):
        return found[1].strip(), "%"
    if (found := _DEGREES.fullmatch(text)) and not _FUNCTION.search(text):
        return found[1].strip(), "deg"
    if (found := _TEXT_UNIT.fullmatch(text)) and not _HEDGE.search(found[2]):
        return found[1], unit_name(found[2])
    if (found := _PLAIN_UNIT.fullmatch(text)) and not _HEDGE.search(found[2]) and _is_word(found[2]):
        return found[1], unit_name(found[2])
    return text, ""


def unit_name(text: str) -> str:
    """`\\text{ square meters }` -> `m^2`; other words without their plural."""
    words = re.sub(r"\\text|[{}()]|\\cdot ", " ", text).replace(".", "").lower().split()
    squared = "square" in words or "sq" in words
    cubed = "cubic" in words
    words = [_single(word) for word in words if word not in ("square", "sq", "cubic")]
    return " ".join(words) + ("^2" if squared else "^3" if cubed else "")


def units_differ(one: str, other: str) -> bool:
    """Whether both name a known unit, and not the same; a unit that only one of them names is left out of the comparison."""
    return one != other and all(_base(unit) in KNOWN for unit in (one, other))


def _base(unit: str) -> str:
    return unit.split("^")[0].split("/")[0].split(" ")[0]


def _single(word: str) -> str:
    base, sign, power = word.partition("^")
    base = _SAME.get(base) or _SAME.get(base.removesuffix("s")) or (base.removesuffix("s") if len(base) > 3 else base)
    return base + sign + power


def _is_word(text: str) -> bool:
    """Words of a unit, not a product of symbols: known, or of at least four letters."""
    words = re.sub(r"\^\{?-?\d\}?", "", text).split()
    return all(_base(_single(word.lower())) in KNOWN or len(word) >= 4 for word in words)
