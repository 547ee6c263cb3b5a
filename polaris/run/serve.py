"""Weights to the rollout engine, and the proof that it serves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from polaris.distributed.fsdp import reshard
from polaris.distributed.mesh import World
from polaris.learn.packing import Sample, build_pack
from polaris.learn.update import forward
from polaris.model.policy import Policy
from polaris.rollout.types import Engine
from polaris.run.context import Rooms
from polaris.sync.probe import Probe, check_gap, logprob_gap
from polaris.sync.publish import publish
from polaris.types import Rollout


def serve_weights(rooms: Rooms, version: int) -> float:
    """Publish the policy as `version`; returns the mean log-prob gap on what the engine samples then, of the rank where it is largest.

    Raises:
        WeightSyncError: the engine's log-probs are not the trainer's.
    """
    publish(rooms.engine, rooms.policy.named_weights(), version)
    gap = measure_gap(rooms.engine, rooms.policy, rooms.probe, rooms.world)
    check_gap(gap, rooms.yardstick, version)
    return gap


def measure_gap(engine: Engine, policy: Policy, probe: Probe, world: World) -> float:
    """Mean distance of the log-probs of engine and policy on the responses of the probe, in nats, of the rank where it is largest."""
    rollouts = probe.draw(engine)
    return max(world.gather([logprob_gap(rollouts, _trainer_logprobs(policy, rollouts, world.device))]))


@torch.no_grad()
def _trainer_logprobs(policy: Policy, rollouts: Sequence[Rollout], device: torch.device) -> np.ndarray:
    """Log-probs [R] of the rollouts' response tokens, one rollout after the other."""
    samples = [
        Sample(prompt_tokens=r.prompt_tokens, tokens=r.tokens, logprobs=r.logprobs, advantage=0.0, temperature=r.temperature)
        for r in rollouts
    ]
    policy.eval()
    logprob, _ = forward(policy, build_pack(samples, device))
    reshard(policy)
    return logprob.float().cpu().numpy()
