"""One optimizer update on one step's samples: packs -> forward -> policy loss -> backward -> clip -> guarded step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polaris.config.schema import RunConfig
from polaris.distributed import watch
from polaris.distributed.fsdp import divide_gradients, groups_of
from polaris.distributed.mesh import World
from polaris.distributed.travel import deal
from polaris.learn.aggregate import aggregate_of, count, denominator, gradient_scale
from polaris.learn.objective import pack_objective, policy_loss_settings
from polaris.learn.packing import Pack, Packs, TrainingSample, plan_packs
from polaris.learn.passes import Passes, backward
from polaris.learn.statistics import Statistics
from polaris.model.policy import Policy
from polaris_kernels import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """`loss` and `grad_norm` (before clipping) of the whole update over all ranks; `applied` is false if either was not finite. `split`:
    the packs that were planned did not fit into the memory."""

    loss: float
    grad_norm: float
    applied: bool
    packs: int
    split: bool = False


def split_updates(samples: Sequence[TrainingSample], updates: int) -> list[list[TrainingSample]]:
    """The samples in their order, cut into `updates` parts of nearly equal length; empty parts are left out."""
    bounds = [len(samples) * i // updates for i in range(updates + 1)]
    return [list(samples[a:b]) for a, b in pairwise(bounds) if b > a]


def rank_packs(samples: Sequence[TrainingSample], world: World, tokens_per_pack: int) -> Packs:
    """This rank's packs of one update's samples (`weighted`, where the loss is averaged otherwise than it would by itself)."""
    share, shares = world.shares
    plan = plan_packs([sample.length for sample in samples], shares, world.pack_tokens(tokens_per_pack))
    return Packs(samples, plan[share], world.device, world.sequence)


def dealt_packs(batches: Sequence[Sequence[TrainingSample]], world: World, tokens_per_pack: int) -> list[Packs]:
    """`rank_packs` of each batch, where only rank 0 need hold the arrays of all samples: it deals out those of the others' packs."""
    share, count = world.shares
    plans = [plan_packs([sample.length for sample in batch], count, world.pack_tokens(tokens_per_pack)) for batch in batches]
    dealt = [
        [batch[i].rollout for batch, plan in zip(batches, plans, strict=True) for members in plan[part] for i in members]
        for part in range(count)
        for _ in range(world.sequence.size)
    ]
    own = {id(known): rollout for known, rollout in zip(dealt[world.rank], deal(dealt, world), strict=True)}
    held = [[replace(sample, rollout=own.get(id(sample.rollout), sample.rollout)) for sample in batch] for batch in batches]
    return [Packs(batch, plan[share], world.device, world.sequence) for batch, plan in zip(held, plans, strict=True)]


@torch.no_grad()
def with_proximal_logprobs(policy: Policy, packs: Packs) -> Packs:
    """The packs with the log-probs [R] of their tokens under the policy as it is before the step's first update."""
    found = []
    for index, pack in enumerate(packs):
        watch.mark(f"proximal log-probs, pack {index + 1} of {len(packs)}")
        found.append(logprobs(policy, pack).cpu())
    return packs.with_values("proximal_logprob", found)


def logprobs(policy: Policy, pack: Pack) -> Tensor:
    """Log-probs [R] of a pack's response tokens."""
    logprob, _ = forward(policy, pack)
    return pack.whole(logprob)


def forward(policy: Policy, pack: Pack, objective: Callable[..., Any] | None = None) -> Any:
    """Log-probs and entropies of this rank's part of a pack's response tokens, or what the objective makes of their hidden states."""
    batch = pack.own_batch
    return policy(pack.tokens, pack.position_ids, pack.layout, pack.rows, batch.targets, batch.temperature, objective)


def counted(total: Tensor, pack: Pack) -> Tensor:
    """A sum over all of a pack's tokens, on one of the ranks that have it; 0 on the others."""
    return total if pack.layout.ranks.rank == 0 else torch.zeros_like(total)


def accumulate(policy: Policy, packs: Sequence[Pack], total: float, config: RunConfig, scale: float = 1.0) -> Passes:
    """Backward through every pack; the loss is this rank's share. Gradients are those of sum / `total` over all ranks.

    What is propagated back is `scale` times the sum, not the loss: divided by the millions of tokens of a step, gradients of half
    precision would underflow. The division comes last, on the float32 gradients that FSDP has reduced. `scale`: see `gradient_scale`.
    """
    settings = policy_loss_settings(config.algorithm)

    def part(pack: Pack) -> tuple[Tensor, Statistics]:
        def objective(hidden: Tensor, head: Head, temperature: Tensor) -> tuple[Tensor, Statistics]:
            return pack_objective(hidden, head, temperature, pack, settings, 1 / scale)

        return forward(policy, pack, objective)

    found = backward(policy, packs, part, config.distributed.reshard)
    divide_gradients(policy, total * scale)
    return replace(found, loss=found.loss / (total * scale))


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    packs: Sequence[Pack],
    samples: Sequence[TrainingSample],
    config: RunConfig,
    statistics: Statistics,
) -> UpdateResult:
    """Apply one optimizer step unless its loss or gradient is not finite on any rank; then no rank applies it."""
    kind, counts = aggregate_of(config.algorithm), count(samples, config.rollout.max_response_tokens)
    policy.train()
    found = accumulate(policy, packs, denominator(kind, counts), config, gradient_scale(kind, counts))
    statistics.merge(found.statistics)
    return guarded_step(policy, optimizer, found, config.optimizer.grad_clip)


def guarded_step(policy: Policy, optimizer: torch.optim.Optimizer, found: Passes, grad_clip: float) -> UpdateResult:
    """The optimizer's step with the gradients that the passes have left, and this rank's share of the loss; see `update`."""
    loss = found.loss
    for group in groups_of(policy):
        dist.all_reduce(loss, group=group)
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), grad_clip)
    grad_norm = float(norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm)
    applied = bool(torch.isfinite(loss)) and bool(torch.isfinite(torch.tensor(grad_norm)))
    if applied:
        optimizer.step()
    optimizer.zero_grad()
    return UpdateResult(loss=float(loss), grad_norm=grad_norm, applied=applied, packs=found.packs, split=found.split)
