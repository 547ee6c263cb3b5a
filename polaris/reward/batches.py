"""Many responses through a pool, with a report of how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polaris.reward.pool import GraderPool
from polaris.types import GroundTruth, Verdict

BATCH = 512


def grade_in_batches(pool: GraderPool, items: Sequence[tuple[str, GroundTruth]], done: Callable[[int], None]) -> list[Verdict]:
    """Verdicts of (response, ground truth) pairs, in their order; `done` is told after every batch how many there are."""
    verdicts: list[Verdict] = []
    for start in range(0, len(items), BATCH):
        verdicts += pool.grade(items[start : start + BATCH])
        done(len(verdicts))
    return verdicts
