"""Exact reading of written-out numbers: integers, decimals, quotients of two integers, mixed numbers, powers of ten.

Expressions to compute, such as `17 \\cdot 23`, `2^5` and `\\sqrt{4}`, are not numbers. Text is `respell`ed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from polaris.reward.screen import MAX_CHARS

MAX_POWER_OF_TEN = 1_000
ROUNDED_DIGITS = 6
"""A decimal with this many significant digits may stand for a number that has no finite decimal."""

_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_SPACED = r"[1-9]\d{0,2}(?: \d{3})+"
_DECIMAL = rf"(?:(?:{_INTEGER}|{_SPACED})(?:\.\d*)?|\.\d+)"
_POWER = r"(?:(?:\\cdot |\*|x)10\^(?:\{([+-]?\d{1,4})\}|([+-]?\d))|[eE]([+-]?\d{1,4}))"
_NUMBER = re.compile(rf"([+-]*)({_DECIMAL}){_POWER}?")
_FRACTION = re.compile(rf"([+-]*)({_INTEGER})?\\frac\{{([+-]?)({_INTEGER})\}}\{{([+-]?)({_INTEGER})\}}")
_SLASHED = re.compile(rf"([+-]*)(?:({_INTEGER}) )?({_INTEGER})/({_INTEGER})")
_REPEATING = re.compile(r"([+-]*)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\{?(\d+)\}?|\((\d+)\)|\\dot\{?(\d)\}?(\d*)\\dot\{?(\d)\}?)")
_GOING_ON = re.compile(r"([+-]*)(\d*)\.(\d+)(?:\\ldots ?|\.\.\.)")
# A digit three times, or several twice, behind as few others as may be.
_PERIOD = re.compile(r"(\d*?)(?:(\d)\2{2,}|(\d{2,}?)\3+)")
_TENTH = re.compile(r"([+-]*)10\^(?:\{([+-]?\d{1,4})\}|(\d))")


@dataclass(frozen=True, slots=True)
class Number:
    """`digits` are the significant ones of a decimal; `reduced` is False for a quotient that is not in lowest terms."""

    value: Fraction
    form: Literal["integer", "decimal", "quotient"]
    digits: int = 0
    reduced: bool = True
    last_place: Fraction = Fraction(0)


def read_number(text: str) -> Number | None:
    """The number that is the whole text, or None."""
    if len(text) > MAX_CHARS:
        return None
    if found := _NUMBER.fullmatch(text):
        return _decimal(found)
    if found := _FRACTION.fullmatch(text):
        whole, inner = found[2], found[3] + found[5]
        # A sign inside makes the whole number a factor, not a summand.
        return None if whole and inner else _quotient(_sign(found[1] + inner), whole, found[4], found[6])
    if found := _SLASHED.fullmatch(text):
        return _quotient(_sign(found[1]), *found.groups()[1:])
    if found := _REPEATING.fullmatch(text):
        return _repeating(found[1], found[2], found[3], "".join(part or "" for part in found.groups()[3:]))
    if (found := _GOING_ON.fullmatch(text)) and (period := _PERIOD.fullmatch(found[3])):
        return _repeating(found[1], found[2], period[1], period[2] or period[3])
    if found := _TENTH.fullmatch(text):
        power = int(found[2] or found[3])
        return Number(_sign(found[1]) * Fraction(10) ** power, "integer") if abs(power) <= MAX_POWER_OF_TEN else None
    return None


def _decimal(found: re.Match[str]) -> Number | None:
    whole, _, part = found[2].replace(",", "").replace(" ", "").partition(".")
    power = int(found[3] or found[4] or found[5] or 0)
    if abs(power) > MAX_POWER_OF_TEN:
        return None
    place = Fraction(10) ** (power - len(part))
    value = _sign(found[1]) * int(whole + part) * place
    digits = len((whole + part).lstrip("0"))
    return Number(value, "integer" if value.denominator == 1 else "decimal", digits=digits, last_place=place)


def _quotient(sign: int, *parts: str | None) -> Number | None:
    whole, top, bottom = (int((text or "0").replace(",", "")) for text in parts)
    if bottom == 0:
        return None
    return Number(sign * (whole + Fraction(top, bottom)), "quotient", reduced=Fraction(top, bottom).denominator == bottom)


def _repeating(signs: str, whole: str, part: str, period: str) -> Number:
    fixed = Fraction(int((whole + part) or "0"), 10 ** len(part))
    return Number(_sign(signs) * (fixed + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(part))), "quotient")


def _sign(signs: str) -> int:
    return -1 if signs.count("-") % 2 else 1


def same_number(gold: Number, answer: Number) -> bool:
    """Equal values; and where both are quotients, the answer is in lowest terms.

    A decimal with at least six significant digits also equals a quotient that it is the rounding of, at its own last place.
    """
    if gold.value == answer.value:
        return not (gold.form == answer.form == "quotient") or answer.reduced or not gold.reduced
    if answer.form == "decimal" and gold.form == "quotient":
        return rounds_to(gold.value, answer)
    if answer.form == "quotient" and gold.form == "decimal":
        return rounds_to(answer.value, gold)
    return False


def rounds_to(exact: Fraction, decimal: Number) -> bool:
    """Whether `decimal` has enough digits and is `exact`, rounded or cut at its last place; False if `exact` has no more digits."""
    return decimal.digits >= ROUNDED_DIGITS and is_cut_or_rounded(exact, decimal)


def is_cut_or_rounded(exact: Fraction, decimal: Number) -> bool:
    """Whether `decimal` is `exact`, rounded or cut at the decimal's own last place."""
    beyond = abs(exact) - abs(decimal.value)
    return -decimal.last_place / 2 <= beyond < decimal.last_place and (exact > 0) == (decimal.value > 0)
