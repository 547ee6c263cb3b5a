"""Units and other words behind a value: `15\\text{ cm}^2`, `100 dollars`, `28%`, `90^\\circ`, `$18.90`.

A word is a unit unless it could change the value or take it back ("million", "squared", "or", "below", "if"): such words stay
part of the expression, which then equals nothing but itself.
"""

from __future__ import annotations

import re

_WORDS = r"[A-Za-z][A-Za-z.\-/ ]*"
_POWER = r"(?:\^\{?-?[0-9]\}?)?"
_TEXT = rf"\\text\{{\(?{_WORDS}(?:(?<=[A-Za-z])(?:\^?[0-9]|\^\{{-?[0-9]\}}))?\)?\}}{_POWER}"
_TEXT_UNIT = re.compile(rf"(.*?[0-9A-Za-z)}}\]%])((?:\\(?:cdot )?|/)?{_TEXT}(?:(?:/|\\cdot )?{_TEXT})*)")
_PLAIN_UNIT = re.compile(rf"((?:[+-]?\$?[0-9][0-9,]*(?:\.[0-9]+)?|.*\}}|.*\)))( ?{_WORDS}{_POWER})")
_DEGREES = re.compile(r"(.+?)\^(?:\{\\circ ?\}|\\circ)(?: ?([CFK])| ?\\text\{([CFK])\})?")
_PERCENT = re.compile(r"(.+?)(?:%|\\text\{(?:percent|per cent)\}| ?percent)")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9][0-9,]*(?:\.[0-9]+)?")
_POWERS_OF_TEN = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NOT_UNITS = frozenset({
    "or", "and", "but", "maybe", "not", "perhaps", "possibly", "probably", "any", "either", "neither", "both", "else", "otherwise",
    "alternatively", "instead", "versus", "vs", "no", "none", "all", "every", "each", "some", "other", "only", "if", "unless", "when",
    "where", "for", "except", "without", "then", "so", "than", "at", "least", "most", "more", "less", "fewer", "greater", "above", "below",
    "under", "over", "about", "around", "almost", "nearly", "roughly", "approximately", "approx", "up", "to", "through", "from", "between",
    "until", "plus", "minus", "times", "divided", "multiplied", "by", "mod", "modulo", "base", "binary", "hex", "pi", "e", "i", "root",
    "factorial", "power", "negative", "positive", "infinity", "infinite", "undefined", "true", "false", "yes", "is", "are", "was",
    "wrong", "incorrect", "invalid", "impossible", "inverse", "inverted", "reciprocal", "opposite", "complement", "tens",
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty",
    "ninety", "hundred", "hundreds", "thousands", "millions", "billions", "trillions", "thousandth", "dozen", "dozens", "score", "half",
    "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth", "fifths", "sixth", "sixths", "seventh", "eighth",
    "eighths", "ninth", "tenth", "tenths", "hundredth", "hundredths", "thousandths", "twice", "double", "triple", *_POWERS_OF_TEN,
})  # fmt: skip
_SAME = {
    "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm",
    "inch": "in", "inches": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l", "joule": "j", "watt": "w", "newton": "n",
    "volt": "v", "kelvin": "k", "pound": "lb", "ounce": "oz", "dollar": "$", "usd": "$", "degree": "deg", "radian": "rad", "mph": "mi/h",
    "kmh": "km/h", "kph": "km/h", "milliliter": "ml", "millilitre": "ml",
}  # fmt: skip
KNOWN = frozenset(name for name in _SAME.values() if "/" not in name) | {
    "%", "hz", "pa", "ev", "mol", "ms", "c", "day", "week", "month", "year", "cent", "unit", "am", "pm", "mg", "euro",
}  # fmt: skip
_LETTERS = KNOWN | set("atf")
"""Letters that are units: metre, second, ..., ampere, tesla, degree Fahrenheit; others are symbols."""


def split_unit(text: str) -> tuple[str, str]:
    """The value and its unit in one spelling; ("text", "") where there is none."""
    if len(text) > 1 and (text.startswith("$") or text.endswith("$")):
        return text.removeprefix("$").removesuffix("$"), "$"
    if text.startswith(("-$", "+$")) and len(text) > 2:
        return text[0] + text[2:], "$"
    if found := _PERCENT.fullmatch(text):
        return found[1].strip(), "%"
    if (found := _DEGREES.fullmatch(text)) and not _FUNCTION.search(text):
        return found[1].strip(), f"deg {found[2] or found[3] or ''}".strip()
    if found := _TEXT_UNIT.fullmatch(text):
        return _worded(found[1], found[2]) or (text, "")
    if (found := _PLAIN_UNIT.fullmatch(text)) and _is_plain_unit(found[2]):
        return _worded(found[1], found[2]) or (text, "")
    return text, ""


def unit_name(text: str) -> str:
    """`\\text{ square meters }` -> `m^2`, `meters per second` -> `m/s`; other words without their plural."""
    text = re.sub(r"\\text|[{}()]|\\cdot ", " ", text).replace(".", "").lower()
    words = re.sub(r" +(?=\^)", "", re.sub(r" *(?:\bper\b|/) *", "/", text)).split()
    squared, cubed = "square" in words or "sq" in words, "cubic" in words
    words = ["/".join(map(_single, word.split("/"))) for word in words if word not in ("square", "sq", "cubic")]
    return " ".join(words) + ("^2" if squared else "^3" if cubed else "")


def units_differ(one: str, other: str) -> bool:
    """Whether both name a known unit, and not the same; a unit that only one of them names is left out of the comparison."""
    if one == other or not all(_base(unit) in KNOWN for unit in (one, other)):
        return False
    return "deg" not in (one, other) or _base(one) != _base(other)


def _worded(value: str, words: str) -> tuple[str, str] | None:
    """The value and unit, where the words are one; `5 million dollars` is 5000000 dollars."""
    found = re.findall(r"[a-z]+", words.removeprefix("\\text").replace("\\text", " ").lower())
    if found and found[0] in _POWERS_OF_TEN and _PLAIN_NUMBER.fullmatch(value):
        value, found = f"{value}\\cdot 10^{{{_POWERS_OF_TEN[found[0]]}}}", found[1:]
        words = " ".join(found)
    unknown = any(len(word) == 1 and word not in _LETTERS for word in found)
    changes = not found or unknown or found[0] in ("squared", "cubed") or not _NOT_UNITS.isdisjoint(found)
    return (value, unit_name(words)) if not changes else (value, "") if not found else None


def _base(unit: str) -> str:
    return unit.split("^")[0].split("/")[0].split(" ")[0]


def _single(word: str) -> str:
    base, sign, power = word.partition("^")
    base = _SAME.get(base) or _SAME.get(base.removesuffix("s")) or (base.removesuffix("s") if len(base) > 3 else base)
    return base + sign + power


def _is_plain_unit(text: str) -> bool:
    """Words without `\\text` are a unit, not a product of symbols: known names of two letters or more, or four letters behind a space."""
    spaced = text.startswith(" ")
    words = re.sub(r"\^\{?-?\d\}?", "", text).replace("/", " ").split()
    named = [_base(_single(word.lower())) in KNOWN for word in words]
    short = [len(word) == 1 for word in words]
    if spaced and words == ["m", "s"]:
        return True
    return not all(short) and all(known or (spaced and len(word) >= 4) for word, known in zip(words, named, strict=True))
