"""How probable it is that a temperature loses a share of the best accuracy, from noisy accuracies over a grid of temperatures.

Differences of a few percent drown in the noise of some dozens of prompts, so the absence of a significant loss proves nothing: a loss
must be shown to be small. One comparison alone can rarely show it. The whole curve can, for accuracy over temperature rises, stays,
and falls. Hence a hidden Markov model, computed exactly:

- The state at a temperature is the share of the best accuracy that is lost there, one of `levels`, and whether the best is still to
  come. Losses shrink up to the best temperature and grow after it.
- Before data: the coolest temperature is a best one with probability `COOLEST_IS_BEST`. From a best one, accuracy holds up to the
  hottest with probability `HOLDS`, on a coarse grid as on a fine one. How it falls after that is unknown: at every step or only at
  few of them (`CHANGES`), by shares that are small or large (`SPEEDS`). A curve follows one of these six ways, each as probable as
  another, so a slow decline over the whole grid is expected as much as a cliff. Up to the best, accuracy rises as it falls after it.
- An accuracy is normal around its truth. Its variance is that of the prompts' values about (accuracy of the temperature) x (share of
  the prompt): temperatures are compared over pairs of the same prompt, which leaves out how much prompts differ in difficulty. It is
  pooled over temperatures as a multiple of p (1 - p) / n, where a temperature has n responses to each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

COOLEST_IS_BEST = 0.9
HOLDS = 0.15
CHANGES = (1.0, 0.1)
"""Probability that accuracy changes from one temperature to the next."""
SPEEDS = (0.01, 0.05, 0.25)
"""Mean of a change, which is exponentially distributed, as a share of the best accuracy."""
_LEAST_NOISE = 0.01
"""As a share of the best accuracy: below it the levels are too coarse."""
_LEVELS = (
    *(0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.125, 0.15),
    *(0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
_LEAST_LOG = -40.0
"""Of a likelihood relative to the greatest: products of smaller ones leave the range of numbers."""


def chances_of_at_most(losses: Sequence[float], accuracy: np.ndarray, samples: np.ndarray, *, times_prompts: float = 1.0) -> np.ndarray:
    """Probability [len(losses), K] that each row of `accuracy` [K, P] truly loses at most so much of the best.

    The rows are avg@n of P prompts, the same at K rising temperatures, from n = `samples` [K] responses to each. `times_prompts` answers
    for so many times as many prompts with the same means. One prompt shows no noise and is taken as exact.
    """
    means = accuracy.mean(axis=1)
    if accuracy.shape[1] == 1 or len(means) == 1:
        best = int(means.argmax())
        falling = [np.minimum.accumulate(side) for side in (means[best::-1], means[best:])]
        lost = 1 - np.append(falling[0][:0:-1], falling[1]) / means[best]
        return np.array([lost <= loss for loss in losses]).astype(float)
    levels = np.unique([*_LEVELS, *losses])
    noise = np.maximum(standard_errors(accuracy, samples) / times_prompts**0.5, _LEAST_NOISE * means.max())
    posterior = _posterior(means, noise, levels)
    return np.array([posterior[:, levels <= loss].sum(axis=1) for loss in losses])


def standard_errors(accuracy: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Standard error [K] of the mean of each row of `accuracy` [K, P], of `samples` [K] responses, about its truth on these prompts."""
    temperatures, prompts = accuracy.shape
    means = accuracy.mean(axis=1)
    apart = accuracy - np.outer(means, samples @ accuracy) / (samples @ means)
    variance = (samples @ apart**2).sum() / (prompts - 1) * temperatures / (temperatures - 1)
    per_prompt = np.clip(variance / max((means * (1 - means)).sum(), 1e-9) / samples, 1e-3, 1.0)
    drawn = prompts / per_prompt
    shrunk = (drawn * means + 2) / (drawn + 4)  # Agresti and Coull 1998: no accuracy of 0 is certain
    return np.sqrt(shrunk * (1 - shrunk) / drawn)


def _posterior(means: np.ndarray, noise: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Probability [K, L] of each level at each temperature; the best accuracy itself is integrated out on a grid."""
    last = len(levels)
    start, step = _prior(levels, len(means))
    losses = np.concatenate([levels, levels[1:]])
    spread = noise[means.argmax()]
    best = np.linspace(max(means.max() - 6 * spread, means.max() / 50), min(1.0, means.max() + 4 * spread), 21)
    logs = -0.5 * ((means[:, None, None] - best[:, None] * (1 - losses)) / noise[:, None, None]) ** 2
    likelihood = np.exp(np.maximum(logs - logs.max(axis=(1, 2), keepdims=True), _LEAST_LOG))  # [K, best, states]
    forward = [start * likelihood[0]]  # [ways, best, states]
    for now in likelihood[1:]:
        after = forward[-1] @ step * now
        forward.append(after / after.max())
    backward = np.broadcast_to(np.arange(len(losses)) < last, forward[0].shape).astype(float)  # the best must have come
    posterior = np.empty((len(means), len(losses)))
    for index in range(len(means) - 1, -1, -1):
        posterior[index] = (forward[index] * backward).sum(axis=(0, 1))
        backward = backward * likelihood[index] @ step.swapaxes(1, 2)
        backward /= backward.max()
    posterior[:, 1:last] += posterior[:, last:]
    return posterior[:, :last] / posterior[:, :last].sum(axis=1, keepdims=True)


def _prior(levels: np.ndarray, temperatures: int) -> tuple[np.ndarray, np.ndarray]:
    """Start [S] and transitions [W, S, S] of the W ways over S = 2 L - 1 states: L levels from the best on, then those above 0 before."""
    last, width, holds = len(levels), np.gradient(levels), HOLDS ** (1 / (temperatures - 1))
    start = np.concatenate([[COOLEST_IS_BEST], np.zeros(last - 1), (1 - COOLEST_IS_BEST) * width[1:] / width[1:].sum()])
    ways = []
    for speed, changes in product(SPEEDS, CHANGES):
        falls = _shares(np.triu(width * np.exp(-np.abs(levels[:, None] - levels) / speed)))
        rises = _shares(falls.T)
        step = np.zeros((2 * last - 1,) * 2)
        step[:last, :last] = changes * falls + (1 - changes) * np.eye(last)
        step[0, :last] = (1 - holds) * falls[0]
        step[0, 0] += holds
        step[last:, 0] = changes * rises[1:, 0]
        step[last:, last:] = changes * rises[1:, 1:] + (1 - changes) * np.eye(last - 1)
        ways.append(step)
    return start, np.array(ways)


def _shares(weights: np.ndarray) -> np.ndarray:
    """Each row divided by its sum."""
    return weights / weights.sum(axis=1, keepdims=True)
