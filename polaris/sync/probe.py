"""Proof that the engine serves the weights it was given: log-probs of fixed tokens against the trainer's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from polaris.rollout.types import Engine


class WeightSyncError(RuntimeError):
    """The engine's log-probs are not those of the published weights."""


def probe_tokens(vocab_size: int, length: int = 48) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.Generator(np.random.Philox(key=0)).integers(0, vocab_size, length))


def logprob_gap(engine: Engine, tokens: Sequence[int], trainer_logprobs: np.ndarray) -> float:
    return float(np.abs(engine.score(tokens) - trainer_logprobs).max())


def check_gap(gap: float, tolerance: float, version: int) -> None:
    if not math.isfinite(gap) or gap > tolerance:
        raise WeightSyncError(
            f"after publishing version {version} the engine's log-probs differ by {gap:.3g} nats (tolerance {tolerance:g})"
        )
