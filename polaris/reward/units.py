"""Units and other words behind a value: `15\\text{ cm}^2`, `100 dollars`, `28%`, `90^\\circ`, `$18.90`.

A word is a unit unless it could change or negate the value ("million", "squared", "or", "below", "if"): such words stay in
the expression, which then equals only itself.
"""

from __future__ import annotations

import re
from fractions import Fraction

from polaris.reward.unit_names import KNOWN, is_known, nouns, singular, unit_name

_POWER = r"(?:\^(?:\{-?[0-9]\}|[0-9]))"
_MICRO = r"(?:\\mu ?)?"
_WORD = rf"{_MICRO}[A-Za-z][A-Za-z.\-]*{_POWER}?"
_WORDS = rf"{_WORD}(?:(?:[ /(]|\\cdot ?)+{_WORD})*"
_TEXT = rf"{_MICRO}\\text\{{\(?{_WORDS}[0-9]?\)*\}}{_POWER}?"
_FRACTION = rf"\\frac\{{(?:{_TEXT}|{_WORD})\}}\{{{_TEXT}\}}|\\frac\{{{_TEXT}\}}\{{{_WORD}\}}"
_TEXT_UNIT = re.compile(rf"(.*?[0-9A-Za-z)}}\]%])((?:\\(?:cdot ?)?|/)?{_TEXT}(?:(?:/\(?|\\cdot ?)?{_TEXT})*\)?|{_FRACTION})")
_PLAIN_UNIT = re.compile(rf"((?:[+-]?\$?[0-9][0-9,]*(?:\.[0-9]+)?%?|.*\}}|.*\)))( ?{_WORDS}\)?)")
_SYMBOLS_AS_UNIT = re.compile(rf"(.*?[0-9)}}])(?:\\cdot )? ?({_WORD}(?:(?:[ /]|\\cdot ?){_WORD})*|\\frac\{{{_WORD}\}}\{{{_WORD}\}})")
_SEXAGESIMAL = re.compile(r"(\d+)\^(?:\{\\circ ?\}|\\circ) ?(\d+(?:\.\d+)?)'(?: ?(\d+(?:\.\d+)?)'')?")
_PLAIN_SPEED = re.compile(r" m/s(?:\^(?:2|\{2\}))?")
_NUMBER_WITH_UNIT = re.compile(r"(\d[\d,]*(?:\.\d+)?)(?:('{1,2}|\")| ?(?:\\text\{)? ?([A-Za-z.]+)(?:,? and)?,? ?\}?,?) ?")
# Feet and inches, or minutes and seconds.
_MARKED = re.compile(r"([+-]?\d+(?:\.\d+)?) ?('{1,2}|\")")
_MARKS = {"'": "'", "''": "''", '"': "''"}
_CURRENCY = re.compile(r"(?:\\text\{ ?)?(USD|EUR|GBP|INR|Rs)\.? ?\}? ?(\d.*)")
_ORDINAL = re.compile(r"(\d+)\^?\{?(?:\\text\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th))\}?")
_OHMS = re.compile(r"(.*\d) ?(?:\\text\{ ?([kM])\}|([kM]))?\\Omega ?")
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
_SYMBOLS = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "sigma", "omega", "phi", "psi", "rho", "tau", "sqrt", "sin",
    "cos", "tan", "cot", "csc", "log", "ln", "exp", "prime", "infty",
})  # fmt: skip
_LETTERS = KNOWN | {"t"}
"""Letters that are units: metre, second, ..., tonne; others are symbols."""


def split_unit(text: str) -> tuple[str, str]:
    """The value and its unit in one spelling; ("text", "") where there is none."""
    if found := _ORDINAL.fullmatch(text):
        return found[1], ""
    if len(text) > 1 and (text.startswith("$") or text.endswith("$")):
        return _money(text.removeprefix("$").removesuffix("$"))
    if text.startswith(("-$", "+$")) and len(text) > 2:
        return _money(text[0] + text[2:])
    if found := _OHMS.fullmatch(text):
        return found[1], f"{found[2] or found[3] or ''}ohm"
    if found := _MARKED.fullmatch(text):
        return found[1], _MARKS[found[2]]
    if found := _CURRENCY.fullmatch(text):
        return split_unit(found[2])[0], unit_name(found[1])
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
    if (found := _PLAIN_UNIT.fullmatch(text)) and _is_plain_unit(found[2], spaced=found[2].startswith(" ") or found[1].endswith("%")):
        return _worded(found[1], found[2]) or (text, "")
    return text, ""


def _money(text: str) -> tuple[str, str]:
    value, unit = split_unit(text) if "$" not in text else (text, "")
    return value, " ".join(["$", *nouns(unit)])


def value_of(text: str, unit: str) -> str | None:
    """`12` of `12 m^2` for `m^2`: symbols are read as a unit if the other side of a comparison has that unit."""
    found = _SYMBOLS_AS_UNIT.fullmatch(text)
    return found[1] if found and unit_name(found[2]) == unit else None


def several_units(text: str) -> list[tuple[str, str]]:
    """(value, unit) of each part of `2 \\text{ hours } 30 \\text{ minutes}`; empty for anything else."""
    found = _NUMBER_WITH_UNIT.findall(text) if len(text) < 80 and not _NUMBER_WITH_UNIT.sub("", text) else []
    named = [(value, _MARKS.get(mark) or unit_name(unit)) for value, mark, unit in found]
    return named if 1 < len(named) == len({unit for _, unit in named}) and all(is_known(unit) for _, unit in named) else []


def _worded(value: str, words: str) -> tuple[str, str] | None:
    """The value and unit, if the words are a unit; `5 million dollars` is 5000000 dollars."""
    words = re.sub(r"\\mu ?(?:\\text\{ ?)?", "u", words)
    found = re.findall(r"[a-z]+", words.removeprefix("\\frac").replace("\\text", " ").replace("\\cdot", " ").lower())
    if found == ["times"]:
        return value, "time"
    if found and found[0] in _POWERS_OF_TEN and _PLAIN_NUMBER.fullmatch(value):
        value, found = f"{value}\\cdot 10^{{{_POWERS_OF_TEN[found[0]]}}}", found[1:]
        words = " ".join(found)
    counted = [word for place, word in enumerate(found, 1) if word not in ("positive", "negative") or place == len(found)]
    unknown = any((len(word) == 1 and word not in _LETTERS) or word in _SYMBOLS for word in found)
    if unknown or not CHANGING.isdisjoint(counted) or (found and found[0] in ("squared", "cubed")):
        return None
    name = unit_name(words) if found else ""
    return (value[:-1], " ".join(["%", *nouns(name)])) if value.endswith("%") else (value, name)


def _is_plain_unit(text: str, spaced: bool) -> bool:
    """Words without `\\text` are a unit, not a product of symbols: known names of two letters or more, or four letters behind a space."""
    if _PLAIN_SPEED.fullmatch(text):
        return True
    words = re.findall(r"[A-Za-z]+", text)
    short = all(len(word) == 1 for word in words)
    return not short and all(_is_plain_name(word) or (spaced and len(word) >= 4) for word in words)


def _is_plain_name(word: str) -> bool:
    name = singular(word)
    return name in KNOWN or (is_known(name) and len(word) > 2) or unit_name(word) != name
