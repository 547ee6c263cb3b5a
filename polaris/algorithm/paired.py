"""Whether two results over the same problems differ: paired differences, with problems as the units that vary.

Samples of one problem are alike, so a problem gives one number, the difference of its two means (clusters; Miller 2024, arXiv 2411.00640,
sections 2.2 and 4.2); its t distribution is Student's (1908), which knows that few problems tell their scatter badly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`mean` with its 95 % interval `low` to `high` and two-sided p-value `p`; `problems` is their number.

    `error` is the standard error of the mean and `freedom` its degrees of freedom. `tells` is the difference that so many such problems
    show with p < 0.05 in 80 of 100 repetitions. `alike`: every problem differs by the same.
    """

    mean: float
    low: float
    high: float
    p: float
    problems: int
    error: float
    freedom: int
    tells: float
    alike: bool = False


def paired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Mean of `second - first` [P]: one value per problem, such as its share of correct samples, in 0..1.

    Where every problem differs by the same, mostly 0, the scatter is not known: the interval then covers what so many problems could
    have missed, 1 - 0.05^(1/P) (the "rule of three" for 0 of P), half of which is the error, and p is that of the sign test, 2 * 0.5^P,
    or 1 if nothing differs.

    Raises:
        ValueError: fewer than two problems.
    """
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    problems = len(difference)
    if problems < 2:
        raise ValueError(f"{problems} problem tells no difference; give at least two")
    mean, error = float(np.mean(difference)), float(np.std(difference, ddof=1)) / math.sqrt(problems)
    if error < 1e-12:
        missed = 1 - 0.05 ** (1 / problems)
        return Difference(
            mean=mean,
            low=max(-1.0, mean - missed),
            high=min(1.0, mean + missed),
            p=2 * 0.5**problems if abs(mean) > 1e-12 else 1.0,
            problems=problems,
            error=missed / 2,
            freedom=problems - 1,
            tells=missed,
            alike=True,
        )
    return _difference(mean, error, problems - 1, problems)


def mean_of_sets(sets: Sequence[Difference]) -> Difference:
    """The mean of the sets' means, each counted once, as papers average benchmarks; its degrees of freedom are Welch's (1947), rounded
    down. Sets share no problem."""
    variances = [one.error**2 for one in sets]
    mean, problems = sum(one.mean for one in sets) / len(sets), sum(one.problems for one in sets)
    freedom = sum(variances) ** 2 / sum(variance**2 / one.freedom for variance, one in zip(variances, sets, strict=True))
    return _difference(mean, math.sqrt(sum(variances)) / len(sets), max(1, math.floor(freedom)), problems)


def _difference(mean: float, error: float, freedom: int, problems: int) -> Difference:
    width = t_quantile(0.975, freedom)
    return Difference(
        mean=mean,
        low=max(-1.0, mean - width * error),
        high=min(1.0, mean + width * error),
        p=2 * (1 - t_cdf(abs(mean) / error, freedom)),
        problems=problems,
        error=error,
        freedom=freedom,
        tells=(width + t_quantile(_POWER, freedom)) * error,
    )


def t_cdf(t: float, freedom: int) -> float:
    """Student's distribution function for whole degrees of freedom: the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (sine, sine) if freedom % 2 == 0 else (sine * cosine, sine * cosine)
    first = 1 if freedom % 2 == 0 else 2
    for number in range(first, freedom - 2, 2):
        term *= cosine**2 * number / (number + 1)
        total += term
    if freedom == 1:
        total = 0.0
    inside = total if freedom % 2 == 0 else 2 / math.pi * (angle + total)
    return 0.5 + inside / 2


@lru_cache(1024)
def t_quantile(share: float, freedom: int) -> float:
    """The t below which `share` (above 0.5) of Student's distribution lies."""
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < share else (low, middle)
    return high
