"""Ulysses (Jacobs et al. 2023): neighbouring ranks share a pack, each with its part of the tokens, and in attention of the heads.

Legend: P ranks that share, T tokens of the pack, t = T / P tokens of one rank, H heads, D head dimension, R trained tokens of the pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SequenceRanks:
    """The ranks that share each pack with this one, which is the `rank`-th of `size`; `group` is None where it is alone."""

    group: dist.ProcessGroup | None = None
    size: int = 1
    rank: int = 0

    def part(self, tokens: int) -> slice:
        """This rank's part of a pack of so many tokens, a multiple of `size`."""
        part = tokens // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


ALONE = SequenceRanks()


def repeats(key_heads: int, ranks: int) -> int:
    """How often each key-value head is repeated, so that every rank has those of its query heads (grouped-query attention).

    The least number with which `key_heads` divides by `ranks`. It divides the query heads of a group too, since both numbers divide all
    query heads.
    """
    return ranks // gcd(key_heads, ranks)


def heads_for_tokens(x: Tensor, ranks: SequenceRanks) -> Tensor:
    """[t, H, D], all heads of this rank's tokens -> [T, H / P, D], all tokens of this rank's heads."""
    tokens, heads, size = x.shape
    sent = x.view(tokens, ranks.size, heads // ranks.size, size).transpose(0, 1).contiguous()
    return _AllToAll.apply(sent, ranks.group).flatten(0, 1)


def tokens_for_heads(x: Tensor, ranks: SequenceRanks) -> Tensor:
    """[T, H / P, D] -> [t, H, D], the inverse of `heads_for_tokens`."""
    sent = x.unflatten(0, (ranks.size, -1)).contiguous()
    return _AllToAll.apply(sent, ranks.group).transpose(0, 1).flatten(1, 2)


def gather_rows(x: Tensor, own: slice, rows: int, ranks: SequenceRanks) -> Tensor:
    """[R] values of a pack's rows, of which each rank has computed its `own` part: x [stop - start].

    The gradient of a rank's part is that of the rank's own loss, which must be the loss of all rows.
    """
    return _GatherRows.apply(x, own, rows, ranks.group) if ranks.size > 1 else x


class _AllToAll(torch.autograd.Function):
    """Part p of x [P, ...] goes to rank p; what comes from rank p is part p of the result. It is its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _exchanged(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _exchanged(gradient.contiguous(), ctx.group), None


def _exchanged(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    received = torch.empty_like(x)
    dist.all_to_all_single(received, x, group=group)
    return received


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, own: slice, rows: int, group: dist.ProcessGroup) -> Tensor:
        ctx.own = own
        whole = x.new_zeros(rows)
        whole[own] = x
        dist.all_reduce(whole, group=group)  # parts are of different lengths, and the sum with zeros is exact
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient[ctx.own], None, None, None
