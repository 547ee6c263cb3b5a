"""Bounds of configuration values; each message names field, value and remedy."""

from __future__ import annotations

from polaris.errors import Refused


def at_least(section: str, minimum: float, **values: float) -> None:
    """Raise `Refused` for a value below `minimum`, or NaN."""
    for name, value in values.items():
        if not value >= minimum:
            raise Refused(f"{section}.{name} = {value} is below {minimum}; set it to {minimum} or more")


def at_most(section: str, maximum: float, **values: float) -> None:
    """Raise `Refused` for a value above `maximum`, or NaN."""
    for name, value in values.items():
        if not value <= maximum:
            raise Refused(f"{section}.{name} = {value} is above {maximum}; set it to {maximum} or less")
