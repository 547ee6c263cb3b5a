"""The gradients of `linear_policy_loss` in plain torch. Legend: C rows of a chunk, H hidden size, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.chunked import chunk_logits
from polaris_kernels.linear_policy_loss.call import Call
from polaris_kernels.products import accumulate, product, product_operand
from polaris_kernels.ranges import to_keep, widen
from polaris_kernels.softmax import chosen_logprob, rows_per_chunk


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
    weight = product_operand(head.weight)
    learning = call.learning.nonzero().squeeze(1)
    for rows in learning.split(rows_per_chunk(len(weight))) if len(learning) else ():

        def coefficient(values: Tensor, rows: Tensor = rows) -> Tensor:
            slope = call.slope(values, rows)
            if scale is None:
                return slope
            widen(scale, slope / call.temperature[rows], sums)
            return slope * scale

        part = hidden[rows]
        values = (part, call.targets[rows], call.temperature[rows], coefficient)
        logprob[rows], entropy[rows], gradient = _chunk(head, weight, *values)
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


def _chunk(
    head: Head, weight: Tensor, hidden: Tensor, targets: Tensor, temperature: Tensor, coefficient: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [C], and the gradient of the logits [C, V]; `weight` is `product_operand(head.weight)`.

    `coefficient` tells the gradient of the log-probs from the log-probs.
    """
    rows = len(hidden)
    # Padded, so that every product has one shape and a row's result does not depend on the others.
    padding = (0, 0, 0, rows_per_chunk(len(weight)) - rows)
    logits = chunk_logits(pad(hidden.to(weight.dtype), padding), weight, head)[:rows]
    slope = 1 - (logits / head.softcap).square_() if head.softcap else None
    logprob, entropy, (_, log_total) = chosen_logprob(logits, targets, temperature, with_entropy=True)
    assert entropy is not None
    up = (coefficient(logprob) / temperature).unsqueeze(1)
    gradient = logits.sub_(log_total.unsqueeze(1)).exp_().mul_(-up).scatter_add_(1, targets.unsqueeze(1), up)
    return logprob, entropy, gradient if slope is None else gradient.mul_(slope)
