"""Response lengths that stand for those of a step: a log-normal distribution, cut off at the limit."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

DEVIATION = 0.8
"""Of the logarithm of lengths, as benchmarks/rollout/simulate.py assumes."""


@lru_cache(maxsize=256)
def lengths(count: int, mean: float, limit: int) -> tuple[float, ...]:
    """`count` lengths in tokens, longest first, whose mean is `mean` though none is above `limit`.

    Where the mean is the limit itself, all have that length.
    """
    if mean >= 0.97 * limit:
        return (float(limit),) * count
    steps = [math.exp(DEVIATION * NormalDist().inv_cdf((2 * i + 1) / (2 * count))) for i in range(count - 1, -1, -1)]
    low, high = 0.0, 64.0 * limit
    for _ in range(60):
        median = (low + high) / 2
        found = sum(min(limit, median * step) for step in steps) / count
        low, high = (median, high) if found < mean else (low, median)
    return tuple(min(float(limit), median * step) for step in steps)
