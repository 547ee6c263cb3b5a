"""The three temperature zones of POLARIS and the initial temperature, from accuracy and diversity over a grid of temperatures.

The rule. The best temperature is the one of highest accuracy. A hotter or cooler one *loses* the mean over prompts of the
difference to it; a loss counts only if its bootstrap interval (95 % for all temperatures together, Bonferroni) lies above 0, for
a loss that the probe cannot tell from noise is none. Then, as shares of the best accuracy,

- robust generation: around the best temperature, up to the first one on each side that loses more than `tolerance`;
- controlled exploration: from there up to the last temperature before collapse;
- performance collapse: from the first temperature hotter than the best that loses more than `COLLAPSE_LOSS`.

The initial temperature is the one of highest diversity in robust generation: accuracy has not begun to decline.

The authors drew their zones by eye. Their figures, read from plots to about one point, put the first collapsed temperature at
0.67 of the best accuracy (Qwen3-4B at 1.6) and the last one before collapse at 0.76 (R1-Distill-Qwen-7B at 1.0): hence `COLLAPSE_LOSS`.
Qwen3-4B leaves robust generation with a loss of 0.013 of the best: hence the default tolerance of 0.01.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polaris.algorithm.intervals import bootstrap_interval
from polaris.errors import Refused

COLLAPSE_LOSS = 0.3

Zone = Literal["too cool", "robust generation", "controlled exploration", "performance collapse"]


class NoAccuracy(Refused):
    """The accuracy cannot be told from 0 at any temperature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """Robust generation lies in `robust_from`..`robust_to`, exploration in `robust_to`..`exploration_to`, all of them on the grid.

    Collapse begins between `exploration_to` and `collapse_from`; where that is None, the grid ended before it.
    """

    robust_from: float
    robust_to: float
    exploration_to: float
    collapse_from: float | None
    initial: float

    def of(self, temperature: float) -> Zone:
        """The zone of a temperature of the grid; the hottest of robust generation belongs to that."""
        if temperature < self.robust_from:
            return "too cool"
        if temperature <= self.robust_to:
            return "robust generation"
        return "controlled exploration" if temperature <= self.exploration_to else "performance collapse"


def find_zones(temperatures: np.ndarray, accuracy: np.ndarray, diversity: np.ndarray, *, tolerance: float, seed: int) -> Zones:
    """Zones over K rising `temperatures` [K], from `accuracy` [K, P] (avg@n of each of P prompts, the same at all) and `diversity` [K].

    Raises:
        NoAccuracy: even the best accuracy cannot be told from 0.
    """
    best = int(accuracy.mean(axis=1).argmax())
    if not above_zero(accuracy[best], seed):
        raise NoAccuracy(
            f"the accuracy of the temperature probe is {accuracy[best].mean():.3f} at most, which cannot be told from 0 with "
            f"{accuracy.shape[1]} prompts; give easier prompts (eval.path), more of them (probe.prompts, probe.samples_per_prompt), "
            "longer responses, or a number as stage.temperature"
        )
    lost = losses(accuracy, seed)
    after = _first(k for k in range(best + 1, len(lost)) if lost[k] > tolerance)
    before = _first(k for k in range(best - 1, -1, -1) if lost[k] > tolerance)
    collapsed = first_collapsed(accuracy, seed)
    first = 0 if before is None else before + 1
    last = len(lost) - 1 if after is None else after - 1
    return Zones(
        robust_from=float(temperatures[first]),
        robust_to=float(temperatures[last]),
        exploration_to=float(temperatures[-1 if collapsed is None else collapsed - 1]),
        collapse_from=None if collapsed is None else float(temperatures[collapsed]),
        initial=float(temperatures[first + int(diversity[first : last + 1].argmax())]),
    )


def above_zero(accuracy: np.ndarray, seed: int) -> bool:
    """Whether the mean of `accuracy` [P] can be told from 0."""
    return bootstrap_interval(accuracy, seed)[0] > 0


def first_collapsed(accuracy: np.ndarray, seed: int) -> int | None:
    """The first row of `accuracy` [K, P], at rising temperatures, that is hotter than the best one and lost `COLLAPSE_LOSS` of it."""
    lost = losses(accuracy, seed)
    return _first(k for k in range(int(accuracy.mean(axis=1).argmax()) + 1, len(lost)) if lost[k] > COLLAPSE_LOSS)


def losses(accuracy: np.ndarray, seed: int) -> np.ndarray:
    """Share [K] of the best row's mean that each row of `accuracy` [K, P] loses; 0 where the loss may be noise."""
    means = accuracy.mean(axis=1)
    best = int(means.argmax())
    level = 1 - 0.05 / max(1, len(accuracy) - 1)
    certain = [bootstrap_interval(accuracy[best] - row, seed, level)[0] > 0 for row in accuracy]
    return np.where(certain, 1 - means / means[best], 0.0)


def _first(indices: Iterable[int]) -> int | None:
    return next(iter(indices), None)
