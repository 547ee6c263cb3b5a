"""After a weight sync: does the engine compute what the trainer computes? One fixed prompt answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polaris.errors import RunFailed
from polaris.rollout.types import Engine


class WeightSyncError(RunFailed):
    """The rollout engine does not serve the trainer's weights."""


def probe_tokens(vocab_size: int, length: int = 48) -> tuple[int, ...]:
    """Fixed token ids, spread over the whole vocabulary by Knuth's multiplicative hash so that every part of the embedding is seen."""
    return tuple((i + 1) * 2654435761 % 2**32 * vocab_size >> 32 for i in range(length))


def logprob_gap(engine: Engine, tokens: Sequence[int], trainer_logprobs: np.ndarray) -> float:
    """Mean |engine - trainer| log-prob in nats over tokens[1:]; `trainer_logprobs` [len(tokens) - 1] at temperature 1.

    The mean, because single tokens of small probability are tenths of a nat apart in half precision though all weights are right.
    """
    gap = np.abs(engine.score(tokens) - np.asarray(trainer_logprobs, np.float32))
    return float(gap.mean()) if np.isfinite(gap).all() else float("inf")


def check_gap(gap: float, tolerance: float, version: int) -> None:
    """Raise `WeightSyncError` where `gap` exceeds `tolerance` (both in nats)."""
    if gap == float("inf"):
        raise WeightSyncError(
            f"after the sync of version {version}, log-probs of the probe prompt are not finite: the weights hold NaN or inf. "
            "Lower optimizer.lr and resume from the last checkpoint, or check model.path"
        )
    if not gap <= tolerance:
        raise WeightSyncError(
            f"after the sync of version {version}, engine and trainer differ by {gap:.3g} nats per token of the probe prompt "
            f"(sync.probe_tolerance = {tolerance:.3g}): the engine serves other weights, another rope or another dtype than the trainer. "
            "Resume from the last checkpoint; if it happens again, compare model.dtype and the rope settings, or raise the tolerance"
        )
