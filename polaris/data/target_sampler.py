"""Prompts near a target difficulty: the draw of a step as a pure function of (seed, step, what was seen of the prompts)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from polaris.config.recipe import CurriculumConfig
from polaris.data.prompt_statistics import PromptStatistics
from polaris.errors import Refused

_GRID = (np.arange(64) + 0.5) / 64
"""Pass rates over which is integrated; a Beta of 64 verdicts or fewer is wide beside their distance."""


def target_at(step: int, steps: int, target: Sequence[float]) -> float:
    """The target pass rate of a step: linear from the first value at step 1 to the second at the run's last of `steps`."""
    first, last = target
    return first + (last - first) * min(1.0, (step - 1) / max(1, steps - 1))


def weights(passed: np.ndarray, graded: np.ndarray, target: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The expected pass rate [N] of each prompt and its weight [N], from discounted verdicts `passed` of `graded` [N].

    The rate itself is not known: after these verdicts its distribution is Beta(1 + passed, 1 + failed). The weight is the mean over it of
    the Gaussian exp(-(rate - target)^2 / 2 width^2). So a prompt without verdicts, or with old ones, is likely enough near every target:
    it is never given up.

    >>> rates, found = weights(np.array([0, 0, 4, 8]), np.array([0, 8, 8, 8]), 0.5, 0.15)
    >>> rates.round(2).tolist(), found.round(2).tolist()
    ([0.5, 0.1, 0.5, 0.9], [0.38, 0.07, 0.69, 0.07])
    """
    logs = passed[:, None] * np.log(_GRID) + (graded - passed)[:, None] * np.log1p(-_GRID)
    density = np.exp(logs - logs.max(axis=1, keepdims=True))
    gaussian = np.exp(-((_GRID - target) ** 2) / (2 * width**2))
    return (passed + 1) / (graded + 2), (density * gaussian).sum(axis=1) / density.sum(axis=1)


def too_many(begun: int, prompts: int) -> str:
    """Why a set of so many prompts is too small for a step that begins so many."""
    return f"a step begins {begun} prompts (rollout.oversample), but there are {prompts}; lower it, or add prompts"


class TargetSampler:
    """Batches of `batch` distinct indices of `ids`, drawn one after the other in proportion to `weights`; no prompt comes twice in a step.
    An epoch is as many prompts as there are, but not each of them once.

    Raises `Refused` if there are fewer prompts than one batch, or than the `most` that a step may begin.
    """

    def __init__(
        self, ids: Sequence[str], batch: int, seed: int, statistics: PromptStatistics, config: CurriculumConfig, steps: int, most: int = 0
    ) -> None:
        if batch > len(ids):
            raise Refused(f"{len(ids)} prompts do not fill one step of {batch}; lower trainer.prompts_per_step or add prompts")
        if most > len(ids):
            raise Refused(too_many(most, len(ids)))
        self._ids, self._batch, self._seed = ids, batch, seed
        self._statistics, self._config, self._steps = statistics, config, steps
        self._epoch = self._cursor = self._step = 0
        self._taken: list[int] = []
        self._facts: dict[str, float] = {}

    def next(self, step: int, count: int | None = None, without: Collection[int] = ()) -> list[int]:
        """The indices of one more batch of the step, or of `count` more prompts; none of `without`."""
        wanted = self._batch if count is None else count
        if step != self._step:
            self._step, self._taken = step, []
        if self._cursor + wanted > len(self._ids):
            self._epoch, self._cursor = self._epoch + 1, 0
        recent = np.array([self._statistics.recent(name, step) for name in self._ids])
        target = target_at(step, self._steps, self._config.target)
        rates, weight = weights(recent[:, 0], recent[:, 1], target, self._config.width)
        # The smallest of exponential times with these rates are a weighted draw without replacement (Efraimidis and Spirakis 2006).
        times = -np.log(_uniform(self._seed, step, len(self._taken), len(self._ids))) / weight
        times[[*self._taken, *without]] = np.inf
        chosen: list[int] = np.argsort(times, kind="stable")[:wanted].tolist()
        self._taken += chosen
        self._cursor += wanted
        self._facts = {
            "curriculum/target": target,
            "curriculum/expected": float(rates[self._taken].mean()),
            "curriculum/unknown": float((recent[self._taken, 1] == 0).mean()),
            "curriculum/effective_prompts": float(weight.sum() ** 2 / (weight**2).sum()),
        }
        return chosen

    @property
    def batches_left(self) -> int:
        """Number of batches that this step can still draw."""
        return (len(self._ids) - len(self._taken)) // self._batch

    def facts(self) -> dict[str, float]:
        """Metrics of the step that was drawn last."""
        return dict(self._facts)

    def state(self) -> dict[str, int]:
        return {"epoch": self._epoch, "cursor": self._cursor}

    def restore(self, state: Mapping[str, int]) -> None:
        """Count on from `state()`; a step that was not finished is drawn again from its beginning."""
        self._epoch, self._cursor = state["epoch"], state["cursor"]
        self._step, self._taken = 0, []


def _uniform(seed: int, step: int, drawn: int, size: int) -> np.ndarray:
    """Numbers [size] in (0, 1), others for each batch of a step. numpy keeps the raw stream of a bit generator across versions."""
    generator = np.random.Philox(key=np.array([seed, step], np.uint64), counter=np.array([0, 0, 1, drawn], np.uint64))
    return (np.asarray(generator.random_raw(size) >> np.uint64(11)) + 0.5) * 2.0**-53
