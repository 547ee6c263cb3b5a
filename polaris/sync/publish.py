"""Versioned publication of weights to the rollout engine."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from polaris.rollout.types import Engine


def publish(engine: Engine, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
    """Wake the engine, replace its weights, drop what was cached with the old ones; from here on it serves `version`."""
    engine.wake()
    engine.load_weights(weights, version)
