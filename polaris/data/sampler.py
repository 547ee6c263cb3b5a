"""The order in which steps take prompts: a pure function of (seed, epoch)."""

from __future__ import annotations

import numpy as np

from polaris.errors import Refused


class Sampler:
    """Batches of `batch` distinct indices below `size`. Every epoch is one permutation without its incomplete last batch.

    The position is two integers, so a resumed run continues with exactly the batches it would have seen.
    Raises `ValueError` if the set is smaller than one batch.
    """

    def __init__(self, size: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= size:
            raise Refused(f"{size} prompts do not fill one step of {batch}; lower trainer.prompts_per_step or add prompts")
        self._size, self._batch, self._seed = size, batch, seed
        self._seek(epoch=0, cursor=0)

    def next(self) -> list[int]:
        if self._cursor + self._batch > self._size:
            self._seek(epoch=self._epoch + 1, cursor=0)
        chosen = self._order[self._cursor : self._cursor + self._batch]
        self._cursor += self._batch
        return chosen.tolist()

    @property
    def batches_left(self) -> int:
        """Number of batches left in this epoch."""
        return (self._size - self._cursor) // self._batch

    def state(self) -> dict[str, int]:
        return {"epoch": self._epoch, "cursor": self._cursor}

    def restore(self, state: dict[str, int]) -> None:
        """Continue from `state()` of an earlier sampler over the same set. Raises `ValueError` if it cannot be the same set."""
        epoch, cursor = state["epoch"], state["cursor"]
        if epoch < 0 or not 0 <= cursor <= self._size:
            raise Refused(f"sampler state {state} does not fit a set of {self._size} prompts; resume with the prompt set of that run")
        self._seek(epoch, cursor)

    def _seek(self, epoch: int, cursor: int) -> None:
        self._epoch, self._cursor = epoch, cursor
        self._order = _permutation(self._size, self._seed, epoch)


def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    # numpy keeps the raw stream of a bit generator across versions, but not Generator.permutation.
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")
