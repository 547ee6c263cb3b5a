"""Bounds of configuration values; each message names key, value and remedy. None is a value that was left out, and within them."""

from __future__ import annotations

from math import isfinite

from polaris.errors import Refused


def at_least(section: str, minimum: float, **values: float) -> None:
    """Raise `Refused` for a value below `minimum`, or NaN."""
    for name, value in values.items():
        if not value >= minimum:
            raise Refused(f"{section}.{name} = {value} is below {minimum}; set it to {minimum} or more")


def at_most(section: str, maximum: float, **values: float | None) -> None:
    """Raise `Refused` for a value above `maximum`, or NaN."""
    for name, value in values.items():
        if value is not None and not value <= maximum:
            raise Refused(f"{section}.{name} = {value} is above {maximum}; set it to {maximum} or less")


def positive(section: str, **values: float | None) -> None:
    """Raise `Refused` for a value that is not above 0, or NaN."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise Refused(f"{section}.{name} = {value} must be above 0; correct it, or leave it out, which takes the default")


def finite(section: str, **values: object) -> None:
    """Raise `Refused` for a number, alone or in a tuple, that is infinite or NaN."""
    for name, value in values.items():
        if not all(isfinite(item) for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, float)):
            raise Refused(f"{section}.{name} = {value} must be finite")
