"""Hands the trainer's weights to the rollout engine as one versioned transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from polaris.rollout.types import Engine

if TYPE_CHECKING:
    import torch


def publish(engine: Engine, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
    """Wake the engine, load all weights (Hugging Face names, full tensors) and drop the caches of the old ones; then it serves `version`.

    The trainer calls `engine.sleep()` when generation is over, and this before the next one; between the two no request runs.
    Tensors are taken one at a time, so `weights` may gather them lazily; on every rank, since gathering is collective.

    Raises:
        RuntimeError: the weights are not exactly those of the model; the engine is then closed.
    """
    engine.wake()
    engine.load_weights(weights, version)
