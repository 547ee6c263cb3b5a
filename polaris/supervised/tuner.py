"""Examples -> updated weights, by the mean negative log-probability of their trained tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from polaris.config.sft import SftConfig
from polaris.data.conversations import Example
from polaris.distributed import watch
from polaris.distributed.fsdp import divide_gradients, groups_of, reshard
from polaris.distributed.mesh import World
from polaris.learn.optimizer import last_learning_rate, learning_rate, set_learning_rate
from polaris.learn.packing import Pack, Packs
from polaris.learn.passes import backward
from polaris.learn.statistics import Statistics
from polaris.learn.update import UpdateResult, counted, guarded_step, logprobs, rank_packs
from polaris.model.policy import Policy
from polaris.supervised.examples import as_sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """The sharded policy, its optimizer, and the number of steps of the run."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    config: SftConfig
    world: World
    steps: int

    @property
    def lr(self) -> float:
        """Learning rate of the last update."""
        return last_learning_rate(self.optimizer)

    def update(self, examples: Sequence[Example], step: int) -> UpdateResult:
        """The update of step `step` with the same examples on every rank. Its loss is the mean over all their trained tokens.

        The denominator is counted once over the whole step, so neither packs nor ranks change loss or gradient.
        """
        set_learning_rate(self.optimizer, learning_rate(self.config.optimizer, step, self.steps))
        self.policy.train()
        packs, total = self._packs(examples), _trained(examples)

        def part(pack: Pack) -> tuple[Tensor, Statistics]:
            loss = -logprobs(self.policy, pack).sum()
            return loss - loss.detach() + counted(loss.detach(), pack), Statistics()

        found = backward(self.policy, packs, part, self.config.distributed.reshard)
        divide_gradients(self.policy, total)
        return guarded_step(self.policy, self.optimizer, replace(found, loss=found.loss / total), self.config.optimizer.grad_clip)

    @torch.no_grad()
    def loss(self, examples: Sequence[Example]) -> float:
        """Mean negative log-probability, in nats, of all trained tokens of the examples, which are the same on every rank."""
        self.policy.eval()
        packs, loss = self._packs(examples), torch.zeros((), dtype=torch.float64)
        for index, pack in enumerate(packs):
            watch.mark(f"held-out loss, pack {index + 1} of {len(packs)}")
            logprob = logprobs(self.policy, pack)
            loss -= counted(logprob.double().sum().cpu(), pack)
        reshard(self.policy)
        for group in groups_of(self.policy):
            dist.all_reduce(loss, group=group)
        return float(loss) / _trained(examples)

    def _packs(self, examples: Sequence[Example]) -> Packs:
        return rank_packs([as_sample(one) for one in examples], self.world, self.config.trainer.tokens_per_pack)


def _trained(examples: Sequence[Example]) -> int:
    return sum(one.trained for one in examples)
