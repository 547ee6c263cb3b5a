"""The proof that adapters reach the engine, beside the gap of log-probs, which cannot show it for long.

A run begins with adapters that add nothing, and what its first updates add is less than rounding. Where adapters never reach the engine
(verl #7495), `SyncProof` would pass for many steps. So, before the first step, the engine must draw by adapters that change much (the
`challenge`); and an engine that holds them beside the model's weights must, after each publication, hold those that were published.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from polaris.distributed.mesh import World
from polaris.model.adapters import shaken_adapters, without_adapters
from polaris.rollout.types import Engine, RolloutRequest
from polaris.sync.held import Weights
from polaris.sync.probe import WeightSyncError
from polaris.sync.publish import SyncProof, measure_gaps, publish
from polaris.types import Rollout

STRENGTHS = (0.1, 0.2, 0.4, 0.8)
"""How much adapters add in a challenge, as a part of what the layers beside them give."""
SEEN = 4.0
"""A challenge counts where it shifts the trainer's own log-probs by this multiple of what the yardstick allows."""
MISSING = 0.25
"""Largest part of that shift by which the engine may be off: without the adapters, or with half of them, it is off by more."""


def challenge(engine: Engine, proof: SyncProof, model: nn.Module, weights: Weights, seed: int, world: World) -> tuple[float, float]:
    """Publish adapters of random numbers, compare what the engine draws with the trainer's log-probs, and publish the true ones again.

    Returns the engine's gap, and the shift that the adapters make in the trainer's log-probs of the same tokens, in nats.

    Raises:
        WeightSyncError: the engine does not draw by them.
    """
    shifts: list[float] = []

    def shifted(requests: Sequence[RolloutRequest], rollouts: Sequence[Rollout]) -> np.ndarray:
        found = proof.trainer_logprobs(requests, rollouts)
        with without_adapters(model):
            shifts.append(float(np.abs(found - proof.trainer_logprobs(requests, rollouts)).mean()))
        return found

    for strength in STRENGTHS:
        shifts.clear()
        with shaken_adapters(model, seed, strength):
            publish(engine, weights(), 0)
            gap = max(measure_gaps(engine, proof.probe, shifted, world), default=0.0)
        shift = min(world.gather(shifts), default=0.0)
        if shift >= SEEN * proof.yardstick.tolerance or strength == STRENGTHS[-1]:
            break
    if not gap <= MISSING * shift:
        raise WeightSyncError(
            f"adapters do not reach the engine: on trial, before the first step, adapters of random numbers were published, which shift "
            f"log-probs by {shift:.3g} nats per token, and the engine's are {gap:.3g} off. Set model.lora.sync to another value, or try "
            "another rollout.engine; if it happens again, report it"
        )
    publish(engine, weights(), 0)
    return gap, shift
