"""What ranks of a process group tell each other when each holds some rows of the head, which are columns of the logits.

All ranks have the same hidden states, targets and temperatures, and in the backward the same incoming gradients. In the forward each works
out four numbers per row over its own columns; they are gathered, and every rank merges them in the order of the ranks, to the same bits.
In the backward the gradient of the weight is each rank's own, and that of the hidden states is summed over the ranks before it is rounded.

Legend: T rows (tokens), R ranks, V_r rows of the head on rank r.
"""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from torch import Tensor

from polaris_kernels._ops import add_op_namespace_prefix
from polaris_kernels.checks import check_targets, may_look
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.chunked import chunked_finish, chunked_statistics
from polaris_kernels.softmax import merge_columns
from polaris_kernels.tiles import Tiles

IGNORED = -1
"""Stands for the caller's `ignore_index` among local targets, where that number may be a token."""


def name_of(group: dist.ProcessGroup) -> str:
    """The name by which custom operators know the group. Raises ValueError where this rank is not of it."""
    if not isinstance(group, dist.ProcessGroup):
        raise ValueError(f"group is {group!r}: pass a torch.distributed.ProcessGroup that this rank belongs to, as from mesh.get_group()")
    return group.group_name


@torch.library.custom_op(add_op_namespace_prefix("linear_logprob_local_targets"), mutates_args=())
def local_targets(hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, group: str) -> Tensor:
    """[T] int64: the target's row in this rank's `weight` [V_r, H]; V_r where it is none of them; `IGNORED` for `ignore_index`.

    Where a look at values costs nothing, raises ValueError on all ranks for targets beyond all ranks' rows and for unequal T.
    """
    ranks = _group(group)
    own = targets.new_full((2,), len(hidden), dtype=torch.int64)
    own[0] = len(weight)
    sizes = _gathered(own, ranks)
    if may_look(targets):
        _check(sizes, targets[targets != ignore_index])
    local = targets - sizes[: ranks.rank(), 0].sum()
    here = (local >= 0) & (local < len(weight))
    return local.where(here, len(weight)).masked_fill_(targets == ignore_index, IGNORED)


@local_targets.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, group: str) -> Tensor:
    return torch.empty_like(targets, dtype=torch.int64)


def _check(sizes: Tensor, targets: Tensor) -> None:
    columns, rows = sizes.T.tolist()
    if len(set(rows)) > 1:
        raise ValueError(f"the ranks of the group have {rows} hidden states: all need the same [T, H], as from an all-gather")
    check_targets(targets, sum(columns))


def parallel_forward(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    temperature: Tensor,
    with_entropy: bool,
    group: str,
    tiles: Tiles | None,
    sampling_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The results of `chunked_forward`, or with `tiles` those of `tiled_forward`, under the softmax over all ranks' heads.

    `targets` are those of `local_targets`.
    """
    ranks = _group(group)
    if tiles is None:
        state, *others = _gathered(chunked_statistics(hidden, head, targets, temperature, sampling_mask), ranks)
        for other in others:
            merge_columns(state, other, temperature)
        return chunked_finish(state, targets, temperature, IGNORED, with_entropy)
    from polaris_kernels.linear_logprob.tiled import finished, merged, target_logits, tiled_statistics

    own = temperature.new_full((4, len(hidden)), torch.nan)
    if len(head.weight):  # no tensor descriptor has no rows
        own[:3], _ = tiled_statistics(hidden, head, temperature, tiles, sampling_mask)
        own[3] = target_logits(hidden, head, targets, tiles, sampling_mask)
    else:
        own[:3] = merged(own.new_empty(0, 3, len(hidden)), tiles)
    parts = _gathered(own, ranks)
    chosen = functools.reduce(torch.fmax, parts[:, 3])  # all ranks but one have NaN
    return finished(merged(parts[:, :3], tiles), chosen, targets, temperature, len(head.weight) + 1, IGNORED, tiles)


def sum_over_ranks(total: Tensor, group: str) -> Tensor:
    """The sum of the ranks' tensors, in place."""
    dist.all_reduce(total, group=_group(group))
    return total


def _group(name: str) -> dist.ProcessGroup:
    from torch.distributed.distributed_c10d import GroupName, _resolve_process_group  # not in every build of torch

    return _resolve_process_group(GroupName(name))


def _gathered(own: Tensor, ranks: dist.ProcessGroup) -> Tensor:
    """[R, ...] of the ranks' [...], in their order."""
    parts = own.new_empty(ranks.size(), *own.shape)
    dist.all_gather(list(parts), own, group=ranks)
    return parts
