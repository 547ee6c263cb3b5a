"""Whether two results over the same problems differ: paired differences, with problems as the units that vary.

Samples of one problem are alike, so a problem gives one number, the difference of its two means (clusters; Miller 2024, arXiv 2411.00640,
sections 2.2 and 4.2); its t distribution is Student's (1908), which knows that few problems tell their scatter badly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice

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
        p=2 * t_tail(abs(mean) / error, freedom),
        problems=problems,
        error=error,
        freedom=freedom,
        tells=(width + t_quantile(_POWER, freedom)) * error,
    )


def t_cdf(t: float, freedom: int) -> float:
    """Student's distribution function for whole degrees of freedom: the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = 2 / math.pi * math.atan(t / math.sqrt(freedom)) if freedom % 2 else 0.0
    return 0.5 + (angle + sum(islice(_terms(t, freedom), freedom // 2))) / 2


def t_tail(t: float, freedom: int) -> float:
    """1 - t_cdf(t) for t >= 0, to about ten digits however small it is: the infinite series of 1 less the finite sum is its rest."""
    tail, rest = 1 - t_cdf(t, freedom), 0.0
    if tail > 1e-3:
        return tail
    for term in islice(_terms(t, freedom), freedom // 2, None):
        rest += term
        if term <= 1e-16 * rest:
            break
    return rest / 2


def _terms(t: float, freedom: int) -> Iterator[float]:
    """Without end: the first freedom // 2 terms are those of the finite sums, and all of them come to 1, or to the angle's complement."""
    odd, square = freedom % 2, freedom / (freedom + t**2)
    term = t / math.sqrt(freedom + t**2) * (2 / math.pi * math.sqrt(square) if odd else 1.0)
    for number in count(1 + odd, 2):
        yield term
        term *= square * number / (number + 1)


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
