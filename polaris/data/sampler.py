"""The order in which steps take prompts: a pure function of (seed, epoch); with `[curriculum]` see `polaris.data.target_sampler`.

Sets with weights are mixed in their proportion: an epoch holds as many prompts as it can without one that comes twice, of each set
another part in every epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from polaris.config.recipe import CurriculumConfig
from polaris.config.schema import RunConfig
from polaris.data.pass_rates import read_prior
from polaris.data.prompt_statistics import PRIOR, PromptStatistics
from polaris.data.reading import training_sources
from polaris.data.target_sampler import TargetSampler, too_many
from polaris.errors import Refused
from polaris.types import Prompt


def open_statistics(prompts: Sequence[Prompt], config: CurriculumConfig) -> PromptStatistics:
    """What is known of the prompts before the run: another model's pass rates, where `curriculum.prior` names them."""
    statistics = PromptStatistics(config.half_life)
    if config.prior is not None:
        rates = {prompt.id: read_prior(prompt, config.prior) for prompt in prompts}
        statistics.begin({name: (PRIOR * rate, PRIOR) for name, rate in rates.items()})
    return statistics


AnySampler: TypeAlias = "Sampler | TargetSampler"


def open_sampler(prompts: Sequence[Prompt], config: RunConfig, statistics: PromptStatistics) -> AnySampler:
    """The sampler over a run's or a stage's prompts. Raises `Refused` where an epoch does not fill one step."""
    if config.curriculum.target:
        ids = [prompt.id for prompt in prompts]
        return TargetSampler(
            ids, config.trainer.prompts_per_step, config.seed, statistics, config.curriculum, config.steps, most=config.prompts_begun
        )
    return Sampler(
        len(prompts),
        config.trainer.prompts_per_step,
        config.seed,
        most=config.prompts_begun,
        sets=[prompt.set for prompt in prompts],
        weights=weights_of(config),
    )


def weights_of(config: RunConfig) -> dict[str, float]:
    """The weight of each set by its name; empty where the sets have none."""
    return {source.name: source.weight for source in training_sources(config.data) if source.weight is not None}


def parts_of_epoch(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """How many prompts of each set an epoch holds: the largest numbers in proportion to the weights of the sets that have prompts, each
    rounded down, but 1 at least. Without weights, all.

    >>> parts_of_epoch({"a": 100, "b": 30}, {"a": 1, "b": 0.5})
    {'a': 60, 'b': 30}
    """
    if not weights:
        return dict(sizes)
    # A weight means the decimal number as written: 0.1 to 0.3 is one to three, but their binary values are not.
    written = {name: Fraction(str(weights[name])) for name, size in sizes.items() if size}
    most = min(sizes[name] / weight for name, weight in written.items())
    return {name: max(1, int(most * weight)) for name, weight in written.items()}


class Sampler:
    """Batches of `batch` distinct indices below `size`. Every epoch is one permutation without its incomplete last batch; of sets with
    weights (`sets` has the name of each prompt's), it holds the first `parts_of_epoch` prompts of each. Where a step may begin `most`
    prompts, more than a batch, epochs are whole, and the steps do not end with them.

    The position is two integers, so a resumed run continues with exactly the batches it would have seen.
    Raises `ValueError` if an epoch is smaller than one batch.
    """

    def __init__(
        self, size: int, batch: int, seed: int, *, most: int = 0, sets: Sequence[str] = (), weights: Mapping[str, float] | None = None
    ) -> None:
        self._prompts, self._batch, self._seed = size, batch, seed
        self._parts = parts_of_epoch(Counter(sets), weights) if weights else {}
        self._sets = np.array(sets) if weights else None
        self._size = sum(self._parts.values()) if weights else size
        if not 1 <= max(batch, most) <= self._size:
            remedy = "lower trainer.prompts_per_step or add prompts"
            if weights:
                parts = ", ".join(f"{count} of {name}" for name, count in self._parts.items())
                raise Refused(f"by the weights of data.sets an epoch holds {parts}, which do not fill one step of {batch}; {remedy}")
            if most > batch:
                raise Refused(too_many(most, self._size))
            raise Refused(f"{size} prompts do not fill one step of {batch}; {remedy}")
        self._whole = most > batch
        self._deferred: list[int] = []
        self._seek(epoch=0, cursor=0)

    def next(self, step: int = 0, count: int | None = None, without: Collection[int] = ()) -> list[int]:
        """The indices of the next batch, or of the next `count` prompts but those in `without`, which come later; whatever the step."""
        wanted, busy = self._batch if count is None else count, set(without)
        chosen, deferred = list[int](), list[int]()
        while len(chosen) < wanted:
            index = self._deferred.pop(0) if self._deferred else self._advance()
            (deferred if index in busy else chosen).append(index)
            busy.add(index)
        self._deferred = deferred + self._deferred
        return chosen

    def _advance(self) -> int:
        if self._cursor >= self._end:
            self._seek(epoch=self._epoch + 1, cursor=0)
        self._cursor += 1
        return int(self._order[self._cursor - 1])

    @property
    def batches_left(self) -> int:
        """Number of batches left in this epoch."""
        return (self._end - self._cursor) // self._batch

    def facts(self) -> dict[str, float]:
        """Metrics of the step that was drawn last: the order needs none."""
        return {}

    def state(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "cursor": self._cursor} | ({"deferred": list(self._deferred)} if self._deferred else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier sampler over the same set. Raises `ValueError` if it cannot be the same set."""
        epoch, cursor = state["epoch"], state["cursor"]
        if epoch < 0 or not 0 <= cursor <= self._size:
            raise Refused(f"sampler state {state} does not fit a set of {self._size} prompts; resume with the prompt set of that run")
        self._seek(epoch, cursor)
        self._deferred = list(state.get("deferred", ()))

    def _seek(self, epoch: int, cursor: int) -> None:
        self._epoch, self._cursor = epoch, cursor
        self._end = self._size if self._whole else cursor + (self._size - cursor) // self._batch * self._batch
        order = _permutation(self._prompts, self._seed, epoch)
        self._order = order if self._sets is None else _thinned(order, self._sets, self._parts)


def _thinned(order: np.ndarray, sets: np.ndarray, parts: Mapping[str, int]) -> np.ndarray:
    """The first so many indices of each set, in their order."""
    found = [np.flatnonzero(sets[order] == name)[:count] for name, count in parts.items()]
    return order[np.sort(np.concatenate(found))]


def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    # numpy keeps the raw stream of a bit generator across versions, but not Generator.permutation.
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")
