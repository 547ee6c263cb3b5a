"""Training samples -> updated weights: policy and optimizer behind one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polaris.config.schema import RunConfig
from polaris.distributed.fsdp import assert_sharded, groups_of, reshard
from polaris.distributed.mesh import World
from polaris.learn.aggregate import weighted
from polaris.learn.curate import TrainingBatch, counted_samples, with_kl
from polaris.learn.optimizer import last_learning_rate, learning_rate, set_learning_rate
from polaris.learn.packing import TrainingSample, build_pack
from polaris.learn.reference import Reference
from polaris.learn.statistics import Statistics
from polaris.learn.update import UpdateResult, dealt_packs, logprobs, split_updates, update, with_proximal_logprobs
from polaris.model.policy import Policy
from polaris.rollout.types import RolloutRequest
from polaris.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The updates of one step, and their metrics by name: means and maxima over all tokens and ranks."""

    updates: list[UpdateResult]
    statistics: dict[str, float]

    @property
    def applied(self) -> bool:
        """Whether the weights have changed."""
        return any(update.applied for update in self.updates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """The sharded policy and its optimizer; a stage of training has its own `config`."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    config: RunConfig
    world: World
    reference: Reference | None = None
    """What algorithm.kl measures the distance to."""

    @property
    def lr(self) -> float:
        """Learning rate of the last update."""
        return last_learning_rate(self.optimizer)

    def assert_sharded(self) -> None:
        """Raise RuntimeError if a parameter is gathered: the engine needs that memory while it samples."""
        assert_sharded(self.policy)

    def with_kl(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch with rewards less the distance to the reference, where algorithm.kl = "k1" asks for it; else the same."""
        algorithm = self.config.algorithm
        if algorithm.kl != "k1" or not batch.trained:
            return batch
        assert self.reference is not None
        kl = self.reference.divergences(counted_samples(batch), self.world, self.config.trainer.tokens_per_pack)
        return with_kl(batch, kl, algorithm)

    def update(self, samples: Sequence[TrainingSample], step: int) -> StepResult:
        """All updates of step `step`. Every rank gives the same samples, of which rank 0 alone need hold the arrays. The proximal policy is
        the policy before the first update."""
        trainer, shared = self.config.trainer, self.world.sequence.size > 1
        set_learning_rate(self.optimizer, learning_rate(self.config.optimizer, step, self.config.steps))
        batches = [weighted(part, self.config.algorithm, shared) for part in split_updates(samples, trainer.updates_per_step)]
        packs = dealt_packs(batches, self.world, trainer.tokens_per_pack)
        if len(batches) > 1:
            packs = [with_proximal_logprobs(self.policy, of_batch) for of_batch in packs]
        if self.config.algorithm.kl == "k3":
            assert self.reference is not None
            packs = [self.reference.score(of_batch) for of_batch in packs]
        statistics = Statistics()
        updates = [
            update(self.policy, self.optimizer, of_batch, batch, self.config, statistics)
            for batch, of_batch in zip(batches, packs, strict=True)
        ]
        statistics.all_reduce(self.world.device, groups_of(self.policy))
        return StepResult(updates=updates, statistics=statistics.compute())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """What engines are given: name and full tensor of every parameter, or of adapters alone (model.lora.sync = "adapter"). A collective
        on every rank, one tensor at a time."""
        return self.policy.named_adapters() if self.config.model.lora.served_apart else self.policy.named_weights()

    @torch.no_grad()
    def logprobs(self, requests: Sequence[RolloutRequest], rollouts: Sequence[Rollout]) -> np.ndarray:
        """Log-probs [R] float32 of the rollouts' response tokens, one rollout after the other, each at its temperature."""
        samples = [
            TrainingSample(prompt_tokens=request.prompt_tokens, rollout=rollout, advantage=0.0)
            for request, rollout in zip(requests, rollouts, strict=True)
        ]
        self.policy.eval()
        logprob = logprobs(self.policy, build_pack(samples, self.world.device))
        reshard(self.policy)
        return logprob.float().cpu().numpy()
