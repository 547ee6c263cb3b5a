"""The frozen policy that KL is measured to: the base model, scored once per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polaris.config.model import RopeConfig
from polaris.distributed import watch
from polaris.distributed.fsdp import reshard, shard
from polaris.distributed.mesh import World
from polaris.errors import RunFailed
from polaris.learn.packing import Packs, TrainingSample
from polaris.learn.update import dealt_packs, logprobs
from polaris.model.adapters import without_adapters
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Reference:
    """A policy that is never trained: the trained one without its adapters; or one of its own, of which every rank holds a share of the
    weights, in the compute dtype, on GPUs in host memory."""

    policy: Policy

    @torch.no_grad()
    def logprobs(self, packs: Packs) -> list[Tensor]:
        """Log-probs [R] of each pack's response tokens, at their temperatures, in host memory."""
        found = []
        with without_adapters(self.policy):
            for index, pack in enumerate(packs):
                watch.mark(f"log-probs of the reference, pack {index + 1} of {len(packs)}")
                found.append(logprobs(self.policy, pack).cpu())
        reshard(self.policy)
        return found

    def score(self, packs: Packs) -> Packs:
        """The packs with the reference's log-probs, for a loss with a KL term."""
        return packs.with_values("reference_logprob", self.logprobs(packs))

    def divergences(self, samples: Sequence[TrainingSample], world: World, tokens_per_pack: int) -> np.ndarray:
        """[N] float64 nats: of each sample, the sum of behaviour minus reference log-probs over the tokens that the policy chose.

        This is k1 (Schulman 2020), an unbiased estimate of the KL divergence of whole responses, as verl's `use_kl_in_reward` takes it from
        the reward of a response. Tokens whose engine log-prob is not finite count nothing. Every rank gives the same samples, of
        which rank 0 alone need hold the arrays, scores its share, and has the whole result.

        Raises:
            RunFailed: a log-prob of the reference is not finite.
        """
        (packs,) = dealt_packs([samples], world, tokens_per_pack)
        sums: list[tuple[int, float]] = []
        for members, logprob in zip(packs.plan, self.logprobs(packs), strict=True):
            if not logprob.isfinite().all():
                raise RunFailed('algorithm.kl: log-probs of the reference are not finite; set model.dtype = "bfloat16" or "float32"')
            of_samples = logprob.double().split([len(samples[i].chosen) for i in members])
            for i, of_sample in zip(members, of_samples, strict=True):
                gaps = torch.from_numpy(packs.samples[i].rollout.logprobs[samples[i].chosen]).double() - of_sample
                sums.append((i, float(torch.where(gaps.isfinite(), gaps, 0.0).sum())))
        found = dict(world.gather(sums))
        return np.array([found[i] for i in range(len(samples))], dtype=np.float64)


def load_reference(folder: Path, rope: RopeConfig, world: World, dtype: torch.dtype) -> Reference:
    """The checkpoint in a folder as a reference that computes in `dtype`.

    On GPUs its weights stay in host memory, dtype's size times the parameters over the ranks, and come to the GPU one layer at a time.
    """
    policy = Policy(build_model(folder, rope))
    for parameter in policy.parameters():  # Module.to would round the rotary table too
        parameter.data = parameter.data.to(dtype)
    policy.requires_grad_(False)
    shard(policy, world.mesh, dtype, on_host=world.device.type == "cuda")
    load_weights(policy.model, folder, world.device, on_host=True)
    policy.eval()
    return Reference(policy)
