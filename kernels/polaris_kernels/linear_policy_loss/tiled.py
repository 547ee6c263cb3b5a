"""The gradients of `linear_policy_loss` by the Triton kernels. Legend: C rows of a chunk, H hidden size, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import triton
from torch import Tensor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.tiled import finished, target_logits, tiled_statistics
from polaris_kernels.linear_policy_loss.call import Call
from polaris_kernels.linear_policy_loss.kernel import gradient_kernel
from polaris_kernels.products import accumulate, product, product_operand
from polaris_kernels.ranges import to_keep, widen
from polaris_kernels.tiles import Tiles, addressable, row_stride, tiles_for

ROWS = 4096
"""Rows of a chunk: its logit gradients take 1.2 GB in half precision at V = 151,936."""


def learn(hidden: Tensor, head: Head, call: Call, logprob: Tensor, entropy: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    """Fill in log-probs and entropies of the tokens that learn.

    Returns the gradients of hidden and, where wanted, weight and bias, as `to_keep` keeps them; then their three scales.
    """
    hidden_gradient = torch.zeros_like(hidden)
    weight_sum = torch.zeros_like(head.weight, dtype=logprob.dtype) if wanted[0] else None
    bias_sum = torch.zeros_like(head.bias, dtype=logprob.dtype) if wanted[1] and head.bias is not None else None
    sums = [total for total in (weight_sum, bias_sum) if total is not None]
    # One power of two for all chunks, since their gradients add up: as large as the chunks so far allow.
    scale = logprob.new_full((), 2.0**60) if hidden.dtype == torch.float16 else None
    hidden_scale = None if scale is None else torch.ones_like(logprob).unsqueeze(1)
    weight, addressed = product_operand(head.weight), replace(head, weight=addressable(head.weight))
    learning = call.learning.nonzero().squeeze(1)
    buffer, tiles = hidden.new_empty(min(ROWS, len(learning)), row_stride(len(weight))), tiles_for(hidden, addressed)
    for rows in learning.split(ROWS) if len(learning) else ():

        def coefficient(values: Tensor, rows: Tensor = rows) -> Tensor:
            slope = call.slope(values, rows)
            if scale is None:
                return slope
            widen(scale, slope / call.temperature[rows], sums)
            return slope * scale

        part = hidden[rows]
        values = (part, call.targets[rows], call.temperature[rows], coefficient)
        logprob[rows], entropy[rows], gradient = tiled_chunk(addressed, buffer, tiles, *values)
        if bias_sum is not None:
            bias_sum += gradient.sum(0, dtype=bias_sum.dtype)
        gradient = gradient.to(weight.dtype)
        hidden_gradient[rows], row_scale = to_keep(product(gradient, weight), hidden.dtype, scale, dim=1)
        if hidden_scale is not None and row_scale is not None:
            hidden_scale[rows] = row_scale
        if weight_sum is not None:
            accumulate(weight_sum, gradient.T, part.to(weight.dtype))
    weight_gradient, weight_scale = (None, None) if weight_sum is None else to_keep(weight_sum, hidden.dtype, scale)
    bias_gradient, bias_scale = (None, None) if bias_sum is None else to_keep(bias_sum, hidden.dtype, scale)
    return hidden_gradient, weight_gradient, bias_gradient, hidden_scale, weight_scale, bias_scale


def tiled_chunk(
    head: Head,
    buffer: Tensor,
    tiles: Tiles,
    hidden: Tensor,
    targets: Tensor,
    temperature: Tensor,
    coefficient: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [C], and the gradient of the logits [C, V] in `buffer` [C or more, row_stride(V)].

    `coefficient` tells the gradient of the log-probs from the log-probs.
    """
    rows, vocabulary = len(hidden), len(head.weight)
    kept = buffer[:rows, :vocabulary]
    statistics, maxima = tiled_statistics(hidden, head, temperature, tiles, kept)
    chosen = target_logits(hidden, head, targets, tiles)
    logprob, entropy, softmax = finished(statistics, chosen, targets, temperature, vocabulary, -100, tiles)
    grid = (triton.cdiv(rows, 16), triton.cdiv(vocabulary, tiles.block_v))
    gradient_kernel[grid](
        kept, maxima, targets, temperature, *softmax, logprob, coefficient(logprob), rows, kept.stride(0), head.softcap,
        ROWS=16, TILE=tiles.block_v, SOFTCAP=bool(head.softcap), num_warps=8,
    )  # fmt: skip
    return logprob, entropy, kept
