"""Units in their spellings: names and plurals of the table, powers, products, and which of them differ."""

import pytest

from polaris.reward.spelling import respell
from polaris.reward.unit_names import KNOWN, unit_name, units_differ
from polaris.reward.units import split_unit

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
    "lb": "lbs",
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
    "a": "amperes amps",
    "cal": "calories",
    "coulomb": "coulombs",
    "farad": "farads",
    "tesla": "teslas",
    "byte": "bytes",
    "bit": "bits",
    "bar": "bars",
    "decade": "decades",
    "century": "centuries",
    "rupee": "rupees",
    "arcmin": "arcminutes",
    "arcsec": "arcseconds",
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
    assert set(PLURALS) == KNOWN - {"%", "pound", "am", "pm", "c", "f", "ev", "gbp", "yen", "atm", "'", "''"}


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (["cm^2", "cm^{2}", "cm2", "square cm", "sq. cm", "sq cm", "square centimeters", "cm squared", "\\text{cm}^{2}"], "cm^2"),
        (["m/s", "m s^{-1}", "meters per second", "\\text{m}/\\text{s}", "\\text{m}\\cdot\\text{s}^{-1}"], "m s^-1"),
        (["m/s^2", "meters per second squared", "meters per second per second", "\\frac{\\text{m}}{\\text{s}^2}"], "m s^-2"),
        (["kg m^2 s^{-2}", "s^{-2} kg m^2"], "kg m^2 s^-2"),
        (["mph", "mi/h", "miles per hour"], "h^-1 mi"),
        (["kJ", "kilojoules", "KJ", "kj"], "kj"),
        (["MHz", "megahertz"], "Mhz"),
        (["\\mu m", "\\mu\\text{m}", "micrometers"], "um"),
        (["kWh", "kilowatt-hours", "kW h"], "h kw"),
        (["J/(kg K)", "J kg^{-1} K^{-1}", "J/(kg\\cdot K)"], "j k^-1 kg^-1"),
        (["hours a day", "hours per day", "h/day"], "day^-1 h"),
        (["apples", "apple"], "apple"),
        (["boxes", "box"], "box"),
        (["mega"], "mega"),
        (["babies", "baby"], "baby"),
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
        ("apples", "oranges", True),
        ("red apples", "apples", False),
        ("red apples", "green apples", True),
        ("apples left", "apples", False),
        ("ways", "arrangements", False),
        ("percent increase", "percent", False),
        ("percent increase", "percent decrease", True),
        ("kJ", "J", True),
        ("MW", "mW", True),
        ("nm", "Nm", True),
        ("C", "coulombs", False),
        ("C", "F", True),
        ("cm in length", "cm", False),
        ("feet tall", "ft", False),
        ("feet tall", "m", True),
        ("degrees celsius", "degrees", False),
        ("degrees celsius", "degrees fahrenheit", True),
    ],
)
def test_known_units_differ(one, other, differ):
    assert units_differ(unit_name(one), unit_name(other)) == units_differ(unit_name(other), unit_name(one)) == differ


@pytest.mark.parametrize(
    "text", ["12\\text{ squared}", "12\\text{ or so}", "12 x", "12 m", "y\\mathrm{x}", "2ma", "2mn", "5 theta", "f'", "5 in'"]
)
def test_what_is_no_unit_stays_with_its_value(text):
    assert split_unit(respell(text)) == (respell(text), "")
