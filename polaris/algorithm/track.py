"""A temperature that follows the policy, so that responses stay as diverse as they were when a stage began.

Each step gives the diversity and the accuracy of its prompts, which are others than those of the step before. The rule, over means of
`WINDOW` steps at one temperature:

- The first window is the diversity to hold. The temperature does not move in it.
- It becomes one grid step hotter where diversity is below that, and one cooler where it is above, by more than `CLEARLY` standard errors
  (over the prompts of both windows: noise of prompts does not move it) and by more than three quarters of what a grid step is worth
  (it would only come back). What a grid step is worth is the mean of what the moves so far have changed. After a move a new window begins.
- It stays between `least` and `most`.
- Guard: where accuracy falls clearly below (1 - `COLLAPSE_LOSS`) of the best window of the stage, at a temperature above the one that the
  stage began with, it becomes one step cooler, and never again hotter than that. Where nothing is solved, it does not become hotter.

The guard compares with the stage's own accuracy. If prompts become harder over a stage, that looks like a loss: the temperature then goes
back towards the stage's first one, and not below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from polaris.algorithm.zones import COLLAPSE_LOSS

STEP = 0.05
"""The grid of temperatures."""
WINDOW = 4
"""Steps of training."""
CLEARLY = 3.0
"""Standard errors of a difference. It is looked at after every step, so it must rarely be exceeded by chance."""

Why = Literal["", "less diverse", "more diverse", "accuracy collapses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Means over the prompts of a step, or of several, and the variances of these means."""

    diversity: float
    diversity_variance: float
    accuracy: float
    accuracy_variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The present temperature and what the rule needs to go on: a value, JSON without loss."""

    start: float
    temperature: float
    least: float
    most: float
    held: Seen | None = None
    """The first window, whose diversity is held."""
    window: tuple[Seen, ...] = ()
    """Steps since the last move, the newest `WINDOW` of them."""
    best: float = 0.0
    """Highest accuracy of a window."""
    before: float | None = None
    """Diversity before the last move, until the window after it is full."""
    effects: tuple[float, int] = (0.0, 0)
    """Sum and number of what moves have changed, in the direction of the move."""
    why: Why = ""
    """The reason of the last move."""


def begin(start: float, grid: Sequence[float]) -> Track:
    """The track of a stage that begins at `start`; it stays within `grid` and `start`."""
    return Track(start=start, temperature=start, least=min(*grid, start), most=max(*grid, start))


def follow(track: Track, diversity: np.ndarray, accuracy: np.ndarray) -> Track:
    """The track after a step with `diversity` [P] and `accuracy` [P] of its P prompts."""
    track = replace(track, window=(*track.window, _seen(diversity, accuracy))[-WINDOW:])
    if len(track.window) < WINDOW:
        return track
    now, held = _mean(track.window), track.held
    track = replace(track, best=max(track.best, now.accuracy))
    if held is None:
        return replace(track, held=now, window=())
    if track.before is not None:
        gained = (now.diversity - track.before) * (-1 if track.why != "less diverse" else 1)
        track = replace(track, before=None, effects=(track.effects[0] + gained, track.effects[1] + 1))
    return _moved(track, held, now)


def hotter(temperature: float) -> float:
    """The next hotter temperature on the grid of `STEP`."""
    return round((math.floor(temperature / STEP + 1e-6) + 1) * STEP, 2)


def hotter_ones(temperature: float, top: float) -> list[float]:
    """All hotter temperatures on the grid up to `top`."""
    found = [temperature]
    while hotter(found[-1]) <= top:
        found.append(hotter(found[-1]))
    return found[1:]


def next_place(under: int, over: int | None, last: int) -> int | None:
    """Which place from 0 to `last` to look at next for the first one that is over a mark: `under` is the last one known to be below it,
    `over` the first one known not to be (None: none). None where the answer is known."""
    if over is None:
        return None if under == last else min(max(1, 2 * under), last)
    return (under + over) // 2 if over - under > 1 else None


def most_steps(places: int) -> int:
    """The most places that `next_place` asks for, the first included."""
    return 1 + 2 * (places - 1).bit_length()


def cooler(temperature: float) -> float:
    """The next cooler temperature on the grid of `STEP`."""
    return round((math.ceil(temperature / STEP - 1e-6) - 1) * STEP, 2)


def _moved(track: Track, held: Seen, now: Seen) -> Track:
    lost = (1 - COLLAPSE_LOSS) * track.best - now.accuracy
    if lost > CLEARLY * now.accuracy_variance**0.5 and track.temperature > track.start:
        back = max(cooler(track.temperature), track.start)
        return _at(replace(track, most=back), back, now, "accuracy collapses")
    total, moves = track.effects
    band = max(CLEARLY * math.hypot(now.diversity_variance**0.5, held.diversity_variance**0.5), 0.75 * total / max(1, moves))
    missing = held.diversity - now.diversity
    if missing > band and now.accuracy > 0 and hotter(track.temperature) <= track.most:
        return _at(track, hotter(track.temperature), now, "less diverse")
    if -missing > band and cooler(track.temperature) >= track.least:
        return _at(track, cooler(track.temperature), now, "more diverse")
    return track


def _at(track: Track, temperature: float, now: Seen, why: Why) -> Track:
    return replace(track, temperature=temperature, window=(), before=now.diversity, why=why)


def _seen(diversity: np.ndarray, accuracy: np.ndarray) -> Seen:
    def variance(values: np.ndarray) -> float:
        return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0

    return Seen(
        diversity=float(diversity.mean()),
        diversity_variance=variance(diversity),
        accuracy=float(accuracy.mean()),
        accuracy_variance=variance(accuracy),
    )


def _mean(window: Sequence[Seen]) -> Seen:
    n = len(window)
    return Seen(
        diversity=sum(seen.diversity for seen in window) / n,
        diversity_variance=sum(seen.diversity_variance for seen in window) / n**2,
        accuracy=sum(seen.accuracy for seen in window) / n,
        accuracy_variance=sum(seen.accuracy_variance for seen in window) / n**2,
    )
