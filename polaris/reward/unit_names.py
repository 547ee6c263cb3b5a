"""Names of units: one name for all spellings, and comparison of two names.

Known units are those of the table, alone or with a prefix (`kJ`, `microseconds`), their products and quotients. Every other word is
a noun: `5 apples`, `20% increase`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"[A-Za-z$%]+|[/()]|-?\d")
_SAME = {
    "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm",
    "millimetre": "mm", "inch": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "gram": "g", "kilogram": "kg", "milligram": "mg", "liter": "l", "litre": "l", "milliliter": "ml",
    "millilitre": "ml", "joule": "j", "watt": "w", "newton": "n", "volt": "v", "kelvin": "k", "hertz": "hz", "pascal": "pa", "mole": "mol",
    "millisecond": "ms", "ounce": "oz", "gallon": "gal", "hectare": "ha", "dollar": "$", "usd": "$", "degree": "deg",
    "radian": "rad", "celsius": "c", "fahrenheit": "f", "percent": "%", "sq": "square", "amp": "a", "ampere": "a", "kilo": "kg",
    "calorie": "cal", "arcminute": "arcmin", "arcsecond": "arcsec", "eur": "euro", "rs": "rupee", "inr": "rupee", "person": "people",
    "children": "child", "men": "man", "women": "woman", "mice": "mouse",
}  # fmt: skip
_JOINED = {
    "mph": "mi/h", "kmh": "km/h", "kph": "km/h", "kmph": "km/h", "sqft": "square ft", "rpm": "revolution/min", "mps": "m/s", "Nm": "N m",
    "cc": "cm 3", "fps": "ft/s", "Wh": "W h", "kWh": "kW h", "kwh": "kW h", "MWh": "MW h",
}  # fmt: skip
KNOWN = frozenset(_SAME.values()) - {"square", "people", "child", "man", "woman", "mouse"} | {
    "ev", "day", "week", "month", "year", "cent", "unit", "am", "pm", "acre", "pint", "quart", "cup", "ton", "tonne", "gbp", "yen",
    "ohm", "coulomb", "farad", "tesla", "byte", "bit", "bar", "atm", "decade", "century", "lb", "pound", "'", "''",
}  # fmt: skip
_PREFIXES = {
    "kilo": "k", "mega": "M", "giga": "G", "tera": "T", "hecto": "h", "deci": "d", "centi": "c", "milli": "m", "micro": "u", "nano": "n",
    "pico": "p",
}  # fmt: skip
_PREFIXED = frozenset({"m", "s", "g", "l", "j", "w", "n", "v", "a", "hz", "pa", "ev", "mol", "ohm", "cal", "bar"})
_CAPITALS = {"B": "byte", "C": "coulomb", "F": "farad", "T": "tesla"}
# Marks and letters that stand for several units.
_EITHER = {"'": {"ft", "min", "arcmin"}, "''": {"in", "s", "arcsec"}, "c": {"coulomb"}, "f": {"farad"}, "pound": {"lb", "gbp"}}
_SILENT = frozenset({
    "the", "of", "an", "there", "in", "total", "altogether", "all", "left", "remaining", "long", "wide", "tall", "high", "deep", "thick",
    "old", "away", "apart", "exactly", "different", "distinct", "possible", "such", "length", "width", "height",
})  # fmt: skip
_COUNTERS = frozenset({
    "way", "arrangement", "combination", "permutation", "possibility", "outcome", "option", "selection", "choice", "method", "case",
    "solution", "value", "number", "item", "object", "thing", "element", "member", "people", "time", "unit",
})  # fmt: skip


def unit_name(text: str) -> str:
    """`\\text{ square meters }` -> `m^2`, `meters per second squared` and `m s^{-2}` -> `m s^-2`; other words without their plural."""
    over, _, under = text.removeprefix("\\frac").partition("}{") if text.startswith("\\frac") else (text, "", "")
    powers: dict[str, int] = {}
    for part, sign in ((over, 1), (under, -1)):
        _count(part, sign, powers)
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items()) if power)


def _count(text: str, sign: int, powers: dict[str, int]) -> None:
    """Add the powers of a product of units: each word with what stands before ("square", "per") and behind it ("squared", 2)."""
    text = re.sub(r"\\mu ?(?:\\text\{ ?)?", "u", text).replace("\\text", " ").replace("\\cdot", " ").replace(".", "")
    words = [part for token in _TOKEN.findall(text) for part in _TOKEN.findall(_JOINED.get(token, _JOINED.get(token.lower(), token)))]
    factor, group, last, before = 1, 1, "", sign
    for word in words:
        small = word.lower()
        if small in ("/", "per") or (word in ("a", "an") and last):
            factor = -factor
        elif word in "()":
            group, factor = (factor, 1) if word == "(" else (1, factor)
        elif small in ("square", "sq", "cubic"):
            factor *= 3 if small == "cubic" else 2
        elif small in ("squared", "cubed") or word.lstrip("-").isdigit():
            times = {"squared": 2, "cubed": 3}.get(small) or int(word)
            powers[last] = powers.get(last, 0) + before * (times - 1)
        elif not (small == "in" and last):  # behind a word it is no inch
            last, before, factor = singular(word), sign * group * factor, 1
            powers[last] = powers.get(last, 0) + before


def singular(word: str) -> str:
    """One spelling of a word: known units by their symbol, with the letter of their prefix; everything in the singular."""
    small = word.lower()
    for stem in (small, small.removesuffix("s"), small.removesuffix("es")):
        if stem in _SAME or (stem in KNOWN and len(stem) > 1) or stem == small in KNOWN:
            return _SAME.get(stem, stem)
    for name, letter in _PREFIXES.items():
        if small.startswith(name) and small != name and is_known(unit := singular(small.removeprefix(name))):
            return letter + unit
    letter, unit = word[0].replace("K", "k"), _CAPITALS.get(word[1:], word[1:].lower())
    if letter in _PREFIXES.values() and (unit in _PREFIXED or word[1:] in _CAPITALS):
        return letter + unit
    if small.endswith("ies") and len(small) > 4:
        return f"{small[:-3]}y"
    if re.search(r"(?:[sxz]|[cs]h)es$", small):
        return small[:-2]
    return small.removesuffix("s") if len(small) > 3 and not small.endswith("ss") else small


def is_known(name: str) -> bool:
    """Whether a name of `unit_name`, with its power or without, is that of a unit."""
    base = name.partition("^")[0]
    prefixed = base[:1] in _PREFIXES.values() and (base[1:] in _PREFIXED or base[1:] in _CAPITALS.values())
    return base in KNOWN or prefixed


def is_percent(unit: str) -> bool:
    """Also with nouns: `20% increase`."""
    return "%" in unit.split(" ")


def nouns(unit: str) -> list[str]:
    """The words of a unit's name that are no units and say something."""
    return [part for part in unit.split(" ") if part and not is_known(part) and part not in _SILENT]


def units_differ(one: str, other: str) -> bool:
    """Whether both name known units that differ, or both name things that differ.

    Names on only one side are ignored: `5 red apples` and `5 apples` agree, `5 apples` and `5 pears` do not.
    Words that count anything ("ways", "items") agree with everything.
    """
    if one == other:
        return False
    known = [[part for part in unit.split(" ") if is_known(part)] for unit in (one, other)]
    if all(known) and not _same(*known):
        return True
    things = [set(nouns(unit)) for unit in (one, other)]
    counted = all(names - _COUNTERS for names in things)
    return bool(known[0]) == bool(known[1]) and counted and not (things[0] <= things[1] or things[1] <= things[0])


def _same(one: Sequence[str], other: Sequence[str]) -> bool:
    if ["deg"] in (one, other) and all("deg" in parts for parts in (one, other)):
        return True  # degrees without a scale may be any
    return len(one) == len(other) and all(any(_may_be(left, right) for right in other) for left in one)


def _may_be(one: str, other: str) -> bool:
    return one == other or other in _EITHER.get(one, ()) or one in _EITHER.get(other, ())
