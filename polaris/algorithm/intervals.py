"""Confidence intervals of a mean over prompts."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000
_VALUES_AT_ONCE = 1 << 22


def bootstrap_interval(values: np.ndarray, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of the mean of `values` [P], one value per prompt, such as its avg@n.

    Whole prompts are drawn again, `RESAMPLES` times, so the interval covers the choice of prompts and, as far as the prompts'
    values differ by it, that of samples. It is too narrow for a handful of prompts. The same values and seed give the same interval.

    Raises:
        ValueError: no value.
    """
    if len(values) == 0:
        raise ValueError("an interval of no prompts; give at least one")
    generator = np.random.default_rng(seed)
    rows = max(1, _VALUES_AT_ONCE // len(values))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - start)
        means[start : start + count] = values[generator.integers(len(values), size=(count, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
