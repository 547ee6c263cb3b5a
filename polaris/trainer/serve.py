"""Weights to the rollout engine, and the proof that it serves them."""

from __future__ import annotations

import numpy as np
import torch

from polaris.model.attention import pack_layout
from polaris.sync.probe import check_gap, logprob_gap
from polaris.sync.publish import publish
from polaris.trainer.rooms import Rooms

_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.5}


def serve_weights(rooms: Rooms, version: int) -> float:
    """Publish the policy as `version`; returns the mean log-prob gap over the probe tokens, of the rank where it is largest, in nats.

    Raises:
        WeightSyncError: the engine's log-probs are not the trainer's.
    """
    publish(rooms.engine, rooms.policy.named_weights(), version)
    gap = max(rooms.world.gather([logprob_gap(rooms.engine, rooms.probe, _trainer_logprobs(rooms))]))
    check_gap(gap, rooms.config.sync.probe_tolerance or _TOLERANCE[rooms.config.model.dtype], version)
    return gap


@torch.no_grad()
def _trainer_logprobs(rooms: Rooms) -> np.ndarray:
    """Log-probs [n - 1] of the probe tokens at temperature 1."""
    device = rooms.world.device
    tokens = torch.tensor(rooms.probe, device=device)
    positions = torch.arange(len(tokens), device=device)
    rooms.policy.eval()
    logprob, _ = rooms.policy(
        tokens, positions, pack_layout([len(tokens)], device), positions[:-1], tokens[1:], torch.ones(len(tokens) - 1, device=device)
    )
    return logprob.float().cpu().numpy()
