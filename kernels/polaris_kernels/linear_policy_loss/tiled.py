"""The gradients of `linear_policy_loss` by the Triton kernels, chunk by chunk of its rows.

The forward of a chunk leaves e = 2^(x - r), with the target's x as each row's reference r. With S the row's sum of e, and g the gradient
of its log-prob, the gradient of its logits is u ([j = y] S - e_j) with u = g / (temperature S): one factor per row, which the two products
take on their other sides. Nobody touches the [C, V] numbers again but at the targets. Rows that this cannot serve are done again
exactly, with the softmax's own maximum as reference and a pass over the chunk.

Legend: T rows, C rows of a chunk, H hidden size, V vocabulary, N rows that learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import triton
from torch import Tensor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.tiled import base_2_scale, finished, target_logits, tiled_statistics, write_targets
from polaris_kernels.linear_policy_loss.call import Call
from polaris_kernels.linear_policy_loss.kernel import gradient_kernel, zero_rows_kernel
from polaris_kernels.products import accumulate, product, product_operand
from polaris_kernels.ranges import to_keep, widen
from polaris_kernels.tiles import Tiles, addressable, row_stride, tiles_for

_CHUNK_BYTES = 1_050_000_000
_PRODUCT = 128, 256
"""Rows and columns of the tiles in which the product of a chunk with the head is taken to be computed."""
_LARGEST_SUM = 2.0**64
"""Of e over a row, to the target: beyond it the row is done again exactly."""


@dataclass(slots=True, kw_only=True)
class _Gradients:
    """Gradients of hidden states [T, H] in their dtype, and sums in float32 of those of weight [V, H] and bias [V], or None.

    float16 has a `scale` for all chunks, by which the sums are too large, since they add up: as large as the chunks so far
    allow; and `hidden_scale` [T, 1], by which each row is.
    """

    hidden: Tensor
    weight: Tensor | None
    bias: Tensor | None
    scale: Tensor | None
    hidden_scale: Tensor | None

    def kept(self, weight_dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        """All three as `to_keep` keeps them, that of the weight in its own dtype, then their scales."""
        dtype = self.hidden.dtype
        weight, weight_scale = (None, None) if self.weight is None else to_keep(self.weight, weight_dtype, self.scale)
        bias, bias_scale = (None, None) if self.bias is None else to_keep(self.bias, dtype, self.scale)
        return self.hidden, weight, bias, self.hidden_scale, weight_scale, bias_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is known of all T rows, with `weight` as products take it, and what is filled in: log-probs and entropies [T], gradients."""

    hidden: Tensor
    head: Head
    weight: Tensor
    tiles: Tiles
    call: Call
    logprob: Tensor
    entropy: Tensor
    gradients: _Gradients

    def buffer(self, rows: int) -> Tensor:
        """[C, V] numbers for a chunk, each row of which begins where it may be written; not more than `rows`."""
        vocabulary, size = self.head.weight.shape
        stride = row_stride(vocabulary)
        most = chunk_rows(self.tiles, size, stride * self.hidden.element_size())
        return self.hidden.new_empty(min(most, rows), stride)[:, :vocabulary]


def learn(hidden: Tensor, head: Head, call: Call, logprob: Tensor, entropy: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    """Fill in log-probs and entropies of the tokens that learn.

    Returns the gradients of hidden and, where wanted, weight and bias, as `to_keep` keeps them; then their three scales.
    """
    half = hidden.dtype == torch.float16
    gradients = _Gradients(
        hidden=torch.zeros_like(hidden),
        weight=torch.zeros_like(head.weight, dtype=torch.float32) if wanted[0] else None,
        bias=torch.zeros_like(head.bias, dtype=torch.float32) if wanted[1] and head.bias is not None else None,
        scale=logprob.new_full((), 2.0**60) if half else None,
        hidden_scale=torch.ones_like(logprob).unsqueeze(1) if half else None,
    )
    head = replace(head, weight=addressable(head.weight))
    tiles = keeping(tiles_for(hidden, head), head, call.batch.sampling_mask)
    work = _Work(
        hidden=hidden,
        head=head,
        weight=product_operand(head.weight),
        tiles=tiles,
        call=call,
        logprob=logprob,
        entropy=entropy,
        gradients=gradients,
    )
    learning = call.learning.nonzero().squeeze(1)
    # Neither float16's range nor a soft cap goes with one factor per row.
    if not half and not head.softcap:
        learning = learning[~_learn_by_rows(work, learning)]
    _learn_exactly(work, learning)
    return gradients.kept(hidden.dtype if head.main_grad is None else torch.float32)


def keeping(tiles: Tiles, head: Head, sampling_mask: Tensor | None) -> Tiles:
    """The tiles of a forward that keeps its exponentials: beside a bias or a mask, Triton 3.9 finds no registers for wide ones."""
    return tiles if head.bias is None and sampling_mask is None else replace(tiles, block_v=min(tiles.block_v, 128))


def chunk_rows(tiles: Tiles, size: int, row_bytes: int) -> int:
    """Rows C of a chunk, whose logits take `row_bytes` each, for a head of `size` columns: at most 1.05 GB, and whole waves.

    A wave is one tile of the product [C, V] [V, H] on each processor; the largest C that keeps 97 % of them busy, or the best there is.
    """
    rows, columns = _PRODUCT
    most = max(1, _CHUNK_BYTES // row_bytes // rows)
    across = math.ceil(size / columns)

    def busy(blocks: int) -> float:
        return blocks * across / (math.ceil(blocks * across / tiles.processors) * tiles.processors)

    best = max(map(busy, range(1, most + 1)))
    return rows * max(blocks for blocks in range(1, most + 1) if busy(blocks) >= min(best, 0.97))


def _learn_by_rows(work: _Work, learning: Tensor) -> Tensor:
    """Do the rows `learning` [N]; [N] bool, which of them it could."""
    head, tiles, gradients = work.head, work.tiles, work.gradients
    buffer, served = work.buffer(len(learning)), torch.ones_like(learning, dtype=torch.bool)
    for rows, fine in zip(learning.split(len(buffer)), served.split(len(buffer)), strict=True) if len(learning) else ():
        hidden, targets, temperature, kept = work.hidden[rows], work.call.targets[rows], work.call.temperature[rows], buffer[: len(rows)]
        mask = work.call.sampling_mask(rows)
        chosen = target_logits(hidden, head, targets, tiles, mask)
        reference = chosen * base_2_scale(tiles) / temperature
        statistics, _ = tiled_statistics(hidden, head, temperature, tiles, mask, exponentials=kept, reference=reference)
        logprob, entropy, _ = finished(statistics, chosen, targets, temperature, len(head.weight), -100, tiles)
        work.logprob[rows], work.entropy[rows] = logprob, entropy
        _, total, moment = statistics
        fine.copy_((total < _LARGEST_SUM) & moment.isfinite())
        factor = (work.call.slope(logprob, rows) / (temperature * total)).where(fine, 0.0).unsqueeze(1)
        write_targets(kept, targets, torch.expm1(logprob) * total, 0, tiles)
        zero_rows_kernel[(len(rows),)](kept, fine, kept.shape[1], kept.stride(0), BLOCK=8192)
        exponentials = product_operand(kept)
        gradients.hidden[rows] = (product(exponentials, work.weight) * -factor).to(hidden.dtype)
        if gradients.weight is not None:
            scaled = torch.mul(hidden, -factor, out=torch.empty_like(hidden)).masked_fill_(~fine.unsqueeze(1), 0.0)
            accumulate(gradients.weight, exponentials.T, product_operand(scaled))
        if gradients.bias is not None:
            accumulate(gradients.bias.unsqueeze(1), exponentials.T, product_operand(-factor.to(hidden.dtype)))
    return served


def _learn_exactly(work: _Work, learning: Tensor) -> None:
    """Do the rows `learning` [N], whatever they hold."""
    head, tiles, gradients, buffer = work.head, work.tiles, work.gradients, work.buffer(len(learning))
    sums, scale = [total for total in (gradients.weight, gradients.bias) if total is not None], gradients.scale
    for rows in learning.split(len(buffer)) if len(learning) else ():
        hidden, targets, temperature, kept = work.hidden[rows], work.call.targets[rows], work.call.temperature[rows], buffer[: len(rows)]
        mask = work.call.sampling_mask(rows)
        chosen = target_logits(hidden, head, targets, tiles, mask)
        statistics, maxima = tiled_statistics(hidden, head, temperature, tiles, mask, exponentials=kept)
        logprob, entropy, softmax = finished(statistics, chosen, targets, temperature, len(head.weight), -100, tiles)
        work.logprob[rows], work.entropy[rows] = logprob, entropy
        if mask is not None:
            targets = targets.masked_fill(logprob == -torch.inf, -1)  # it was cut off
        slope = work.call.slope(logprob, rows)
        if scale is not None:
            widen(scale, slope / temperature, sums)
            slope = slope * scale
        gradient_kernel[(triton.cdiv(len(rows), 16), triton.cdiv(kept.shape[1], tiles.block_v))](
            kept, maxima, targets, temperature, *softmax, logprob, slope, len(rows), kept.stride(0), head.softcap,
            ROWS=16, TILE=tiles.block_v, SOFTCAP=bool(head.softcap), num_warps=8,
        )  # fmt: skip
        gradient = product_operand(kept)
        gradients.hidden[rows], row_scale = to_keep(product(gradient, work.weight), hidden.dtype, scale, dim=1)
        if gradients.hidden_scale is not None and row_scale is not None:
            gradients.hidden_scale[rows] = row_scale
        if gradients.weight is not None:
            accumulate(gradients.weight, gradient.T, product_operand(hidden))
        if gradients.bias is not None:
            gradients.bias += kept.sum(0, dtype=torch.float32)
