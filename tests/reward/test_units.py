"""Units in their spellings: names and plurals of the table, powers, products, and which of them differ."""

import pytest

from polaris.reward.spelling import respell
from polaris.reward.units import KNOWN, split_unit, unit_name, units_differ

PLURALS = {
    "m": "meters metres",
    "km": "kilometers kilometres kms",
    "cm": "centimeters centimetres cms",
    "mm": "millimeters millimetres",
    "in": "inches",
    "ft": "feet",
    "yd": "yards yds",
    "mi": "miles",
    "s": "seconds secs",
    "ms": "milliseconds",
    "min": "minutes mins",
    "h": "hours hrs",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years",
    "g": "grams",
    "kg": "kilograms kgs",
    "mg": "milligrams",
    "lb": "pounds lbs",
    "oz": "ounces",
    "ton": "tons",
    "tonne": "tonnes",
    "l": "liters litres",
    "ml": "milliliters millilitres",
    "gal": "gallons",
    "pint": "pints",
    "quart": "quarts",
    "cup": "cups",
    "acre": "acres",
    "ha": "hectares",
    "j": "joules",
    "w": "watts",
    "n": "newtons",
    "v": "volts",
    "k": "kelvins",
    "hz": "hertz",
    "pa": "pascals",
    "mol": "moles",
    "ohm": "ohms",
    "$": "dollars",
    "cent": "cents",
    "euro": "euros",
    "deg": "degrees",
    "rad": "radians",
    "unit": "units",
}


@pytest.mark.parametrize(("symbol", "plurals"), PLURALS.items())
def test_a_plural_is_its_unit_and_no_other(symbol, plurals):
    for plural in plurals.split():
        assert unit_name(plural) == symbol
        assert split_unit(f"12\\text{{{plural}}}") == ("12", symbol)
        assert [other for other in PLURALS if other != symbol and not units_differ(symbol, unit_name(PLURALS[other].split()[0]))] == []


def test_every_unit_that_has_a_plural_is_in_the_table_above():
    assert set(PLURALS) == KNOWN - {"%", "am", "pm", "c", "f", "ev", "gbp", "yen"}


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (["cm^2", "cm^{2}", "cm2", "square cm", "sq. cm", "sq cm", "square centimeters", "cm squared", "\\text{cm}^{2}"], "cm^2"),
        (["m/s", "m s^{-1}", "meters per second", "\\text{m}/\\text{s}", "\\text{m}\\cdot\\text{s}^{-1}"], "m s^-1"),
        (["m/s^2", "meters per second squared", "meters per second per second", "\\frac{\\text{m}}{\\text{s}^2}"], "m s^-2"),
        (["kg m^2 s^{-2}", "s^{-2} kg m^2"], "kg m^2 s^-2"),
        (["mph", "mi/h", "miles per hour"], "h^-1 mi"),
        (["apples", "apple"], "apple"),
    ],
)
def test_one_name_for_every_spelling(spellings, name):
    assert [unit_name(spelling) for spelling in spellings] == [name] * len(spellings)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("inches", "cm", True),
        ("cm", "cm^2", True),
        ("cm^2", "cm^3", True),
        ("m/s", "m/s^2", True),
        ("m/s", "s/m", True),
        ("cm", "square centimeters", True),
        ("cm", "centimeters", False),
        ("cm", "", False),
        ("apples", "cm", False),
        ("feet tall", "ft", False),
        ("feet tall", "m", True),
        ("degrees celsius", "degrees", False),
        ("degrees celsius", "degrees fahrenheit", True),
    ],
)
def test_known_units_differ(one, other, differ):
    assert units_differ(unit_name(one), unit_name(other)) == units_differ(unit_name(other), unit_name(one)) == differ


@pytest.mark.parametrize("text", ["12\\text{ squared}", "12\\text{ or so}", "12 x", "12 m", "y\\mathrm{x}"])
def test_what_is_no_unit_stays_with_its_value(text):
    assert split_unit(respell(text)) == (respell(text), "")
