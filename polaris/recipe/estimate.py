"""What a difficulty pass will cost: at most, before it starts, and by its first prompts once they are measured."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import sqrt

from polaris.observe.phrases import count, duration
from polaris.recipe.measured import Measured

_NORMAL = 1.96
"""97.5 % quantile of the normal distribution."""


def remaining(rows: Collection[Measured], left: int, seconds: float) -> str:
    """Responses, tokens and time of the `left` prompts that are not measured, by the measured `rows`, which took `seconds`.

    They are ranges with 95 % probability: the rows are a random sample of all prompts, and a prompt's responses (tokens) vary as in the
    rows. Time is tokens at the speed so far.
    """
    tokens = [float(row.tokens) for row in rows]
    found = _range([float(row.responses) for row in rows], left), _range(tokens, left)
    pace = seconds / max(1.0, sum(tokens))
    times = (found[1][0] * pace, found[1][1] * pace)
    return f"{_words(found[0], count)} responses, {_words(found[1], count)} tokens, {_words(times, duration)} left"


def _range(values: Collection[float], left: int) -> tuple[float, float]:
    """The sum of `left` further values between two bounds: their mean is uncertain, and they vary around it."""
    number = len(values)
    mean = sum(values) / number
    variance = sum((value - mean) ** 2 for value in values) / max(1, number - 1)
    half = _NORMAL * sqrt(variance * left * (1 + left / number))
    return max(0.0, left * mean - half), left * mean + half


def _words(bounds: tuple[float, float], words: Callable[[float], str]) -> str:
    low, high = map(words, bounds)
    return low if low == high else f"{low} to {high}"
