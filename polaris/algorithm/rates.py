"""Rates of success over prompts: the interval of a mean, and pass@k."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def wilson_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Score interval (Wilson 1927) of the mean of `values` [P] in 0..1, one value per prompt, such as its avg@n.

    It covers the choice of prompts and of samples. Wilson's number of trials is the effective one (Korn and Graubard 1998): as many
    independent trials as give the mean the variance that the prompts' values show, where one prompt counts as if it showed the
    largest variance there is. So P values of 0 and 1 are P trials, 0 of 30 is [0, 0.114] and 30 of 30 is [0.886, 1]; prompts whose
    values are alike are more than P trials, at most P^2.

    Raises:
        ValueError: no value.
    """
    prompts = len(values)
    if prompts == 0:
        raise ValueError("an interval of no prompts; give at least one")
    mean = float(np.mean(values))
    largest = mean * (1 - mean)
    shown = float(np.var(values)) / largest if largest > 0 else 1.0
    trials = prompts / (shown + (1 - shown) / prompts)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (mean + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * (largest / trials + z**2 / (4 * trials**2)) ** 0.5
    return max(0.0, centre - half) if mean > 0 else 0.0, min(1.0, centre + half) if mean < 1 else 1.0


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Probability that `k` of a problem's `samples` drawn without replacement hold a correct one: pass@k, unbiased (Chen et al. 2021)."""
    assert 0 <= correct <= samples
    assert 1 <= k <= samples
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)
