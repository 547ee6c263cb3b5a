"""Units and other words behind a value: `15\\text{ cm}^2`, `100 dollars`, `28%`, `90^\\circ`, `$18.90`.

A word is a unit unless it could change the value or take it back ("million", "squared", "or", "below", "if"): such words stay
part of the expression, which then equals nothing but itself.
"""

from __future__ import annotations

import re
from fractions import Fraction

_POWER = r"(?:\^(?:\{-?[0-9]\}|[0-9]))"
_WORD = rf"[A-Za-z][A-Za-z.\-]*{_POWER}?"
_WORDS = rf"{_WORD}(?:[ /]+{_WORD})*"
_TEXT = rf"\\text\{{\(?{_WORDS}[0-9]?\)?\}}{_POWER}?"
_FRACTION = rf"\\frac\{{(?:{_TEXT}|{_WORD})\}}\{{{_TEXT}\}}|\\frac\{{{_TEXT}\}}\{{{_WORD}\}}"
_TEXT_UNIT = re.compile(rf"(.*?[0-9A-Za-z)}}\]%])((?:\\(?:cdot ?)?|/)?{_TEXT}(?:(?:/|\\cdot ?)?{_TEXT})*|{_FRACTION})")
_PLAIN_UNIT = re.compile(rf"((?:[+-]?\$?[0-9][0-9,]*(?:\.[0-9]+)?|.*\}}|.*\)))( ?{_WORDS})")
_SYMBOLS_AS_UNIT = re.compile(rf"(.*?[0-9)}}])(?:\\cdot )? ?({_WORD}(?:(?:[ /]|\\cdot ?){_WORD})*|\\frac\{{{_WORD}\}}\{{{_WORD}\}})")
_TOKEN = re.compile(r"[a-z$%]+|/|-?\d")
_SEXAGESIMAL = re.compile(r"(\d+)\^(?:\{\\circ ?\}|\\circ) ?(\d+(?:\.\d+)?)'(?: ?(\d+(?:\.\d+)?)'')?")
_PLAIN_SPEED = re.compile(r" m/s(?:\^(?:2|\{2\}))?")
_NUMBER_WITH_UNIT = re.compile(r"(\d[\d,]*(?:\.\d+)?) ?(?:\\text\{)? ?([A-Za-z.]+)(?:,? and)?,? ?\}?,? ?")
_ORDINAL = re.compile(r"(\d+)\^?\{?(?:\\text\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th))\}?")
_OHMS = re.compile(r"(.*\d) ?\\Omega ?")
_DEGREES = re.compile(r"(.+?)\^(?:\{\\circ ?\}|\\circ)(?: ?([CFK])| ?\\text\{([CFK])\})?")
_PERCENT = re.compile(r"(.+?)(?:%|\\text\{(?:percent|per cent|pct)\}| ?(?:percent|pct))")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9][0-9,]*(?:\.[0-9]+)?")
_POWERS_OF_TEN = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
CHANGING = frozenset({
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
    "millimetre": "mm", "inch": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "gram": "g", "kilogram": "kg", "milligram": "mg", "liter": "l", "litre": "l", "milliliter": "ml",
    "millilitre": "ml", "joule": "j", "watt": "w", "newton": "n", "volt": "v", "kelvin": "k", "hertz": "hz", "pascal": "pa", "mole": "mol",
    "millisecond": "ms", "pound": "lb", "ounce": "oz", "gallon": "gal", "hectare": "ha", "dollar": "$", "usd": "$", "degree": "deg",
    "radian": "rad", "celsius": "c", "fahrenheit": "f", "percent": "%", "sq": "square",
}  # fmt: skip
_JOINED = {"mph": "mi/h", "kmh": "km/h", "kph": "km/h", "sqft": "square ft", "rpm": "revolution/min"}
KNOWN = frozenset(_SAME.values()) - {"square"} | {
    "ev", "day", "week", "month", "year", "cent", "unit", "am", "pm", "euro", "acre", "pint", "quart", "cup", "ton", "tonne", "gbp", "yen",
    "ohm",
}  # fmt: skip
_LETTERS = KNOWN | set("at")
"""Letters that are units: metre, second, ..., ampere, tonne; others are symbols."""


def split_unit(text: str) -> tuple[str, str]:
    """The value and its unit in one spelling; ("text", "") where there is none."""
    if found := _ORDINAL.fullmatch(text):
        return found[1], ""
    if len(text) > 1 and (text.startswith("$") or text.endswith("$")):
        return split_unit(text.removeprefix("$").removesuffix("$"))[0], "$"
    if text.startswith(("-$", "+$")) and len(text) > 2:
        return text[0] + split_unit(text[2:])[0], "$"
    if found := _OHMS.fullmatch(text):
        return found[1], "ohm"
    if found := _PERCENT.fullmatch(text):
        return found[1].strip(), "%"
    if found := _SEXAGESIMAL.fullmatch(text):
        degrees = sum(Fraction(part or "0") / 60**place for place, part in enumerate(found.groups()))
        return f"\\frac{{{degrees.numerator}}}{{{degrees.denominator}}}", "deg"
    if (found := _DEGREES.fullmatch(text)) and not _FUNCTION.search(text):
        scale = (found[2] or found[3] or "").lower()
        return found[1].strip(), f"{scale} deg".strip()
    if found := _TEXT_UNIT.fullmatch(text):
        return _worded(found[1], found[2]) or (text, "")
    if (found := _PLAIN_UNIT.fullmatch(text)) and _is_plain_unit(found[2]):
        return _worded(found[1], found[2]) or (text, "")
    return text, ""


def unit_name(text: str) -> str:
    """`\\text{ square meters }` -> `m^2`, `meters per second squared` and `m s^{-2}` -> `m s^-2`; other words without their plural."""
    over, _, under = text.removeprefix("\\frac").partition("}{") if text.startswith("\\frac") else (text, "", "")
    powers: dict[str, int] = {}
    for part, sign in ((over, 1), (under, -1)):
        _count(part, sign, powers)
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items()) if power)


def _count(text: str, sign: int, powers: dict[str, int]) -> None:
    """Add the powers of a product of units: each word with what stands before ("square", "per") and behind it ("squared", 2)."""
    text = text.replace("\\text", " ").replace("\\cdot", " ").replace(".", "").lower()
    words = [part for token in _TOKEN.findall(text) for part in _TOKEN.findall(_JOINED.get(token, token))]
    factor, last, before = 1, "", sign
    for word in words:
        if word in ("/", "per"):
            factor = -factor
        elif word in ("square", "sq", "cubic"):
            factor *= 3 if word == "cubic" else 2
        elif word in ("squared", "cubed") or word.lstrip("-").isdigit():
            times = {"squared": 2, "cubed": 3}.get(word) or int(word)
            powers[last] = powers.get(last, 0) + before * (times - 1)
        else:
            last, before, factor = _single(word), sign * factor, 1
            powers[last] = powers.get(last, 0) + before


def units_differ(one: str, other: str) -> bool:
    """Whether both name known units, and not the same; a unit that only one of them names is left out of the comparison."""
    known = [[part for part in unit.split(" ") if _base(part) in KNOWN] for unit in (one, other)]
    # Degrees without a scale may be any.
    return one != other and all(known) and known[0] != known[1] and not (["deg"] in known and all("deg" in parts for parts in known))


def value_of(text: str, unit: str) -> str | None:
    """`12` of `12 m^2` for `m^2`: symbols in a place where the other side of a comparison has that unit are the unit."""
    found = _SYMBOLS_AS_UNIT.fullmatch(text)
    return found[1] if found and unit_name(found[2]) == unit else None


def several_units(text: str) -> list[tuple[str, str]]:
    """(value, unit) of each part of `2 \\text{ hours } 30 \\text{ minutes}`; empty for anything else."""
    found = _NUMBER_WITH_UNIT.findall(text) if len(text) < 80 and not _NUMBER_WITH_UNIT.sub("", text) else []
    named = [(value, unit_name(unit)) for value, unit in found]
    return named if 1 < len(named) == len({unit for _, unit in named}) and all(unit in KNOWN for _, unit in named) else []


def _worded(value: str, words: str) -> tuple[str, str] | None:
    """The value and unit, where the words are one; `5 million dollars` is 5000000 dollars."""
    found = re.findall(r"[a-z]+", words.removeprefix("\\frac").replace("\\text", " ").replace("\\cdot", " ").lower())
    if found and found[0] in _POWERS_OF_TEN and _PLAIN_NUMBER.fullmatch(value):
        value, found = f"{value}\\cdot 10^{{{_POWERS_OF_TEN[found[0]]}}}", found[1:]
        words = " ".join(found)
    unknown = any(len(word) == 1 and word not in _LETTERS for word in found)
    changes = not found or unknown or found[0] in ("squared", "cubed") or not CHANGING.isdisjoint(found)
    return (value, unit_name(words)) if not changes else (value, "") if not found else None


def _base(unit: str) -> str:
    return unit.partition("^")[0]


def _single(word: str) -> str:
    """One spelling of a word: known units by their symbol, everything in the singular."""
    for stem in (word, word.removesuffix("s"), word.removesuffix("es")):
        if stem in _SAME or (stem in KNOWN and len(stem) > 1) or stem == word in KNOWN:
            return _SAME.get(stem, stem)
    return word.removesuffix("s") if len(word) > 3 else word


def _is_plain_unit(text: str) -> bool:
    """Words without `\\text` are a unit, not a product of symbols: known names of two letters or more, or four letters behind a space."""
    spaced = text.startswith(" ")
    words = re.findall(r"[A-Za-z]+", text.lower())
    named = [_base(_single(_JOINED.get(word, word).split("/")[0])) in KNOWN for word in words]
    if _PLAIN_SPEED.fullmatch(text):
        return True
    short = all(len(word) == 1 for word in words)
    return not short and all(known or (spaced and len(word) >= 4) for word, known in zip(words, named, strict=True))
