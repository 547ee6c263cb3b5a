"""The three temperature zones of POLARIS and the initial temperature, from accuracy and diversity over a grid of temperatures.

The rule, with the probabilities of `decline`:

- robust generation: where a loss of at most `tolerance` of the best accuracy is more probable than not;
- controlled exploration: hotter, up to the last temperature before collapse;
- performance collapse: from the first temperature that more probably than not loses more than `COLLAPSE_LOSS`.

The initial temperature is the one of highest diversity among the robust ones that *keep* the accuracy: a loss of at most `MOST_LOST`
(or the tolerance, if that is larger) has the probability `SURE`. Where the probe is sure of none, it is the one that most probably
keeps the accuracy. None is taken that was measured clearly below the best. Robust generation always holds the initial temperature.

Too few prompts therefore make the choice careful, never bold; `prompts_to_tell` says how many would settle the rest. `next_draw` leaves
out responses that could not change the choice.

The authors drew their zones by eye. Their figures, read from plots to about one point, put the first collapsed temperature at
0.67 of the best accuracy (Qwen3-4B at 1.6) and the last one before collapse at 0.76 (R1-Distill-Qwen-7B at 1.0): hence `COLLAPSE_LOSS`.
Qwen3-4B leaves robust generation with a loss of 0.013 of the best: hence the default tolerance of 0.01.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from polaris.algorithm.decline import chances_of_at_most, standard_errors
from polaris.errors import Refused

COLLAPSE_LOSS = 0.3
MOST_LOST = 0.03
SURE = 0.98
"""What simulations need to choose within 3 % of the best accuracy in 95 of 100 probes (tests/algorithm/test_probe_power.py)."""
FIRST = 2
"""Responses to each prompt with which a temperature begins: diversity compares two."""
CLEARLY = 2.0
"""Standard errors of a difference."""
MOST_DOUBLINGS = 6
"""64 times as many prompts are as good as never."""

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
    kept: list[float] = field(default_factory=list)
    """Probability of each temperature of the grid to lose at most `may_lose(tolerance)`; empty in results of older versions."""
    prompts_to_tell: int | None = 0
    """Prompts that would settle every temperature which these leave open; 0 where none is open, None where not even 64 times as many."""

    def of(self, temperature: float) -> Zone:
        """The zone of a temperature of the grid; the hottest of robust generation belongs to that."""
        if temperature < self.robust_from:
            return "too cool"
        if temperature <= self.robust_to:
            return "robust generation"
        return "controlled exploration" if temperature <= self.exploration_to else "performance collapse"


def find_zones(temperatures: np.ndarray, accuracy: np.ndarray, diversity: np.ndarray, samples: np.ndarray, *, tolerance: float) -> Zones:
    """Zones over K rising `temperatures` [K], from `accuracy` [K, P] and `diversity` [K].

    `accuracy` is avg@n of each of P prompts, the same at all temperatures, with n = `samples` [K].

    Raises:
        NoAccuracy: even the best accuracy cannot be told from 0.
    """
    best = int(accuracy.mean(axis=1).argmax())
    if not above_zero(accuracy[best]):
        raise NoAccuracy(
            f"the accuracy of the temperature probe is {accuracy[best].mean():.3f} at most, which cannot be told from 0 with "
            f"{accuracy.shape[1]} prompts; give easier prompts (eval.path), more of them (probe.prompts, probe.samples_per_prompt), "
            "longer responses, or a number as stage.temperature"
        )
    robust, kept = chances_of_at_most((tolerance, may_lose(tolerance)), accuracy, samples)
    initial = _initial(robust, kept, _clearly_below(accuracy, samples), diversity)
    robust = np.append(np.flatnonzero(robust > 0.5), initial)
    collapsed = _first(k for k in _collapsed(accuracy, samples) if k > robust.max())
    return Zones(
        robust_from=float(temperatures[robust.min()]),
        robust_to=float(temperatures[robust.max()]),
        exploration_to=float(temperatures[-1 if collapsed is None else collapsed - 1]),
        collapse_from=None if collapsed is None else float(temperatures[collapsed]),
        initial=float(temperatures[initial]),
        kept=kept.round(4).tolist(),
        prompts_to_tell=_prompts_to_tell(tolerance, accuracy, samples),
    )


def may_lose(tolerance: float) -> float:
    """The share of the best accuracy that the initial temperature may lose."""
    return max(tolerance, MOST_LOST)


def above_zero(accuracy: np.ndarray) -> bool:
    """Whether the mean of `accuracy` [P] can be told from 0: prompts drawn anew rarely (2.5 %) hold none that was ever solved."""
    return float((1 - np.mean(accuracy > 0)) ** len(accuracy)) < 0.025


def first_collapsed(accuracy: np.ndarray, samples: np.ndarray, chance: float = 0.5) -> int | None:
    """The first row of `accuracy` [K, P], at rising temperatures, that is hotter than the best one and lost `COLLAPSE_LOSS` of it, with a
    probability above `chance`."""
    return _first(_collapsed(accuracy, samples, chance))


def next_draw(accuracy: np.ndarray, samples: np.ndarray, most: int, *, tolerance: float) -> tuple[int, int] | None:
    """Which of K rising temperatures gets responses next, and how many to each prompt it then has; None if the probe has what it needs.

    `accuracy` [K, P] is avg@n with n = `samples` [K], 0 where nothing is drawn yet. First each temperature gets `FIRST`, the coolest
    before the others, up to one that has surely collapsed: hotter ones then have too. After that, those that may still become the initial
    temperature get as many again, the one with the fewest first, up to `most`; the others would only waste them. Where only one is left,
    it is chosen. The answer depends on what is drawn alone, so a probe that was killed goes on as it would have.
    """
    missing = _first(np.flatnonzero(samples == 0))
    if missing is not None and first_collapsed(accuracy[:missing], samples[:missing], SURE) is None:
        return missing, min(FIRST, most)
    drawn = np.flatnonzero(samples)
    may = _may_be_chosen(accuracy[drawn], samples[drawn], tolerance)
    wanting = drawn[may & (samples[drawn] < most)]
    if may.sum() <= 1 or not len(wanting):
        return None
    index = int(wanting[samples[wanting].argmin()])
    return index, min(2 * int(samples[index]), most)


def _may_be_chosen(accuracy: np.ndarray, samples: np.ndarray, tolerance: float) -> np.ndarray:
    """Which rows [K] do not surely lose more than the initial temperature may; all where the best accuracy cannot be told from 0."""
    if not above_zero(accuracy[accuracy.mean(axis=1).argmax()]):
        return np.ones(len(accuracy), dtype=bool)
    return chances_of_at_most((may_lose(tolerance),), accuracy, samples)[0] > 1 - SURE


def _initial(robust: np.ndarray, kept: np.ndarray, clearly_below: np.ndarray, diversity: np.ndarray) -> int:
    """The most diverse of the robust ones that surely keep the accuracy, else the one that most probably does."""
    sure = np.flatnonzero((robust > 0.5) & (kept >= SURE) & ~clearly_below)
    return int(sure[diversity[sure].argmax()]) if len(sure) else int(np.where(clearly_below, -1, kept).argmax())


def _clearly_below(accuracy: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Which rows [K] of `accuracy` [K, P] have a mean clearly below the best one, as 0 is below one that can be told from it."""
    means = accuracy.mean(axis=1)
    best = means.argmax()
    if accuracy.shape[1] == 1:
        return np.zeros(len(means), dtype=bool)
    errors = standard_errors(accuracy, samples)
    return (means == 0) | (means[best] - means > CLEARLY * np.hypot(errors, errors[best]))


def _collapsed(accuracy: np.ndarray, samples: np.ndarray, chance: float = 0.5) -> Iterable[int]:
    if not accuracy.any():
        return iter(())
    lost = chances_of_at_most((COLLAPSE_LOSS,), accuracy, samples)[0] < 1 - chance
    return (k for k in range(int(accuracy.mean(axis=1).argmax()) + 1, len(lost)) if lost[k])


def _prompts_to_tell(tolerance: float, accuracy: np.ndarray, samples: np.ndarray) -> int | None:
    """How many prompts would make every temperature sure or unlikely, if their accuracies were the ones measured."""

    def settled(doublings: int) -> bool:
        kept = chances_of_at_most((may_lose(tolerance),), accuracy, samples, times_prompts=2**doublings)[0]
        return bool(np.all((kept >= SURE) | (kept <= 1 - SURE)))

    doublings = bisect_left(range(MOST_DOUBLINGS + 1), True, key=settled)
    if doublings > MOST_DOUBLINGS:
        return None
    return 2**doublings * accuracy.shape[1] if doublings else 0


def _first(indices: Iterable[int]) -> int | None:
    return next(iter(indices), None)
