"""Bounds of configuration values; each message names field, value and remedy."""

from __future__ import annotations

from polaris.errors import Refused


def require(condition: bool, message: str) -> None:
    """Raise `Refused(message)` unless the condition holds; the message names field, value and remedy."""
    if not condition:
        raise Refused(message)


def at_least(room: str, minimum: float, **values: float) -> None:
    """Raise `Refused` for a value below `minimum`."""
    for name, value in values.items():
        require(value >= minimum, f"{room}.{name} = {value} is below {minimum}; set it to {minimum} or more")


def at_most(room: str, maximum: float, **values: float) -> None:
    """Raise `Refused` for a value above `maximum`."""
    for name, value in values.items():
        require(value <= maximum, f"{room}.{name} = {value} is above {maximum}; set it to {maximum} or less")
