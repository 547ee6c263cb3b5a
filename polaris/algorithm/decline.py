"""How probable it is that a temperature loses a share of the best accuracy, from noisy accuracies over a grid of temperatures.

Differences of a few percent drown in the noise of some dozens of prompts, so the absence of a significant loss proves nothing: a loss
must be shown to be small. One comparison alone can rarely show it. The whole curve can, for accuracy over temperature rises, stays,
and falls. Hence a hidden Markov model, computed exactly:

- The state at a temperature is the share of the best accuracy that is lost there, one of `levels`, and whether the best is still to
  come. Losses shrink up to the best temperature and grow after it.
- Before data: the coolest temperature is a best one with probability `COOLEST_IS_BEST`. From a best one, accuracy holds up to the
  hottest with probability 1/2, on a coarse grid as on a fine one. A loss once begun stays at the next temperature with probability
  1/2, else any larger level is as probable as another; before the best it stays or shrinks in the same way.
- An accuracy is normal around its truth. Its variance is that of the prompts' values about (accuracy of the temperature) x (share of
  the prompt), which leaves out how much prompts differ in difficulty; it is pooled over temperatures as a multiple of p (1 - p).
"""

from __future__ import annotations

import numpy as np

COOLEST_IS_BEST = 0.8
_LEAST_NOISE = 0.01
"""As a share of the best accuracy: below it the levels are too coarse."""
_LEVELS = (0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


def chance_of_at_most(loss: float, accuracy: np.ndarray, *, times_prompts: float = 1.0) -> np.ndarray:
    """Probability [K] that each row of `accuracy` [K, P] (avg@n of P prompts at K rising temperatures) truly loses at most `loss`.

    `times_prompts` answers for so many times as many prompts with the same means. One prompt shows no noise and is taken as exact.
    """
    means = accuracy.mean(axis=1)
    if accuracy.shape[1] == 1 or len(means) == 1:
        best = int(means.argmax())
        falling = [np.minimum.accumulate(side) for side in (means[best::-1], means[best:])]
        return (1 - np.append(falling[0][:0:-1], falling[1]) / means[best] <= loss).astype(float)
    levels = np.unique(np.append(_LEVELS, loss))
    noise = np.maximum(_noise(accuracy) / times_prompts**0.5, _LEAST_NOISE * means.max())
    return _posterior(means, noise, levels)[:, levels <= loss].sum(axis=1)


def _noise(accuracy: np.ndarray) -> np.ndarray:
    """Standard error [K] of each row's mean about its truth on these prompts."""
    temperatures, prompts = accuracy.shape
    means = accuracy.mean(axis=1)
    apart = accuracy - np.outer(means, accuracy.mean(axis=0)) / accuracy.mean()
    variance = (apart**2).sum() / (prompts - 1) * temperatures / (temperatures - 1)
    per_prompt = np.clip(variance / max((means * (1 - means)).sum(), 1e-9), 1e-3, 1.0)
    samples = prompts / per_prompt
    shrunk = (samples * means + 2) / (samples + 4)  # Agresti and Coull 1998: no accuracy of 0 is certain
    return np.sqrt(shrunk * (1 - shrunk) / samples)


def _posterior(means: np.ndarray, noise: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Probability [K, L] of each level at each temperature; the best accuracy itself is integrated out on a grid."""
    last = len(levels)
    start, step = _prior(last, len(means))
    losses = np.concatenate([levels, levels[1:]])
    best = np.linspace(max(means.max() - 6 * noise.max(), means.max() / 50), min(1.0, means.max() + 4 * noise.max()), 121)
    logs = -0.5 * ((means[:, None, None] - best[:, None] * (1 - losses)) / noise[:, None, None]) ** 2
    likelihood = np.exp(logs - logs.max(axis=(1, 2), keepdims=True))  # [K, best, states]
    forward = [start * likelihood[0]]
    for now in likelihood[1:]:
        forward.append(forward[-1] @ step * now)
    backward = np.broadcast_to(np.arange(len(losses)) < last, forward[0].shape).astype(float)  # the best must have come
    posterior = np.empty((len(means), len(losses)))
    for index in range(len(means) - 1, -1, -1):
        posterior[index] = (forward[index] * backward).sum(axis=0)
        backward = backward * likelihood[index] @ step.T
    posterior[:, 1:last] += posterior[:, last:]
    return posterior[:, :last] / posterior[:, :last].sum(axis=1, keepdims=True)


def _prior(levels: int, temperatures: int) -> tuple[np.ndarray, np.ndarray]:
    """Start [S] and transitions [S, S] of S = 2 `levels` - 1 states: levels from the best on, then those above 0 before it."""
    start, step = np.zeros(2 * levels - 1), np.zeros((2 * levels - 1,) * 2)
    start[0], start[levels:] = COOLEST_IS_BEST, (1 - COOLEST_IS_BEST) / (levels - 1)
    for level in range(levels):
        stays = 1.0 if level == levels - 1 else 0.5 ** (1 / (temperatures - 1)) if level == 0 else 0.5
        step[level, level] = stays
        step[level, level + 1 : levels] = (1 - stays) / max(1, levels - 1 - level)
    for level in range(1, levels):
        before = levels + level - 1
        step[before, 0] = 0.5
        step[before, levels : before + 1] = 0.5 / level
    return start, step
