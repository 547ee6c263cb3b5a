"""The one place where whatever a policy's text makes foreign code raise becomes a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(compute: Callable[[], T]) -> T | Exception:
    """What `compute` returns, or the exception that it raises.

    For parsers, algebra and scorers of others on text that a policy writes: they raise whatever they meet, and each caller says what a text
    that they cannot read is worth.
    """
    try:
        return compute()
    except Exception as error:
        return error
