"""Forward and backward of an update's packs; packs that do not fit into the memory are split, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from polaris.distributed import watch
from polaris.distributed.fsdp import begin_pack
from polaris.learn.packing import Pack, Packs
from polaris.learn.statistics import Statistics
from polaris.model.policy import Policy

PartOfLoss = Callable[[Pack], tuple[Tensor, Statistics]]
"""This rank's part of a pack's loss, with its graph, and the metrics of that part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """`loss` is the sum over this rank's passes, `packs` their number; `split` says that those planned were too large."""

    loss: Tensor
    statistics: Statistics
    packs: int
    split: bool = False


def backward(policy: Policy, packs: Sequence[Pack], part: PartOfLoss, reshard: bool) -> Passes:
    """Leave the gradients of all packs in the policy.

    If a GPU's memory is exhausted, what was computed is dropped, and everything is done again with packs of half the size.

    Raises:
        torch.OutOfMemoryError: not `can_split`, every pack is a single sequence, or halves are too large too.
    """
    try:
        return _through(policy, packs, part, reshard)
    except torch.OutOfMemoryError:
        smaller = packs.halved() if isinstance(packs, Packs) and can_split() else None
        if smaller is None:
            raise
    # The exception, whose frames hold the pack's activations, is gone here.
    assert isinstance(policy, FSDPModule)
    policy.zero_grad()  # of the weights that are gathered now, which the reset leaves
    policy.reset_iter_state()
    policy.zero_grad()
    torch.cuda.empty_cache()
    return replace(_through(policy, smaller, part, reshard), split=True)


def can_split() -> bool:
    """Whether a rank may do an update again: it is alone (others wait in the middle of a layer), and torch can begin anew, from 2.13 on."""
    return dist.get_world_size() == 1 and hasattr(FSDPModule, "reset_iter_state")


def _through(policy: Policy, packs: Sequence[Pack], part: PartOfLoss, reshard: bool) -> Passes:
    statistics, loss_sum = Statistics(), torch.zeros((), dtype=torch.float64)
    for index, pack in enumerate(packs):
        watch.mark(f"update, pack {index + 1} of {len(packs)}")
        begin_pack(policy, index + 1 == len(packs), reshard)
        loss, found = part(pack)
        loss.backward()
        statistics.merge(found)
        loss_sum += loss.detach().double().cpu()
    return Passes(loss=loss_sum, statistics=statistics, packs=len(packs))
