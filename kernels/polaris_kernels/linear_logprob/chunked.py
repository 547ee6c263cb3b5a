"""`linear_logprob` in plain torch, one block of rows and slab of columns at a time: no tensor ever has T * V elements.

Legend: T rows (tokens), H hidden size, V vocabulary, C rows of a block, W columns of a slab, N rows whose gradient is not zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from polaris_kernels.head import Head
from polaris_kernels.products import accumulate, product, product_operand
from polaris_kernels.rows import Rows
from polaris_kernels.softmax import add_columns, logit_gradient

_BLOCK_ROWS, _SLAB_COLUMNS = 256, 4096


def chunked_forward(
    hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, ignore_index: int, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs [T], entropies [T] (or [0]), and [2, T] the maxima and the logs of the softmax's sums, as `temperature` [T].

    The last block is padded to C rows, so every product has the same shape and a row's result does not depend on T.
    """
    size = _BLOCK_ROWS
    padding = -len(hidden) % size
    state = temperature.new_zeros(4, len(hidden) + padding)
    state[0], state[3] = -torch.inf, torch.nan
    divisor, chosen = pad(temperature, (0, padding), value=1.0), pad(targets, (0, padding), value=-1)
    for columns, slab in _slabs(head):
        for rows in _spans(len(hidden), size):
            block = hidden[rows].to(slab.weight.dtype)
            logits = chunk_logits(pad(block, (0, 0, 0, size - len(block))), slab.weight, slab)
            span = slice(rows.start, rows.start + size)
            add_columns(state[:, span], logits, chosen[span] - columns.start, divisor[span])
    maximum, total, moment, logit = state[:, : len(hidden)]
    ignored, log_total = targets == ignore_index, total.log()
    logprob = ((logit - maximum) / temperature - log_total).masked_fill_(ignored, 0.0)
    entropy = (log_total - moment / total).masked_fill_(ignored, 0.0) if with_entropy else temperature.new_empty(0)
    return logprob, entropy, torch.stack([maximum, log_total])


def chunked_backward(hidden: Tensor, head: Head, values: Rows, with_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V] (or None) in their dtypes; `values` are those of the N rows.

    Sums are float32 or float64, each gradient is rounded once.
    """
    hidden_sum = torch.zeros_like(hidden, dtype=values.temperature.dtype)
    weight_gradient = torch.zeros_like(head.weight) if with_weight else None
    bias_gradient = torch.zeros_like(head.bias) if head.bias is not None else None
    for columns, slab in _slabs(head):
        weight_sum = torch.zeros_like(slab.weight)
        bias_sum = hidden_sum.new_zeros(len(weight_sum))
        for rows in _spans(len(hidden), _BLOCK_ROWS):
            block = hidden[rows].to(slab.weight.dtype)
            logits = chunk_logits(block, slab.weight, slab)
            slope = 1 - (logits / head.softcap).square_() if head.softcap else None
            row = values[rows]
            gradient = logit_gradient(logits, replace(row, targets=row.targets - columns.start))
            if slope is not None:
                gradient.mul_(slope)
            bias_sum += gradient.sum(0)
            gradient = gradient.to(slab.weight.dtype)
            accumulate(hidden_sum[rows], gradient, slab.weight)
            if with_weight:
                accumulate(weight_sum, gradient.T, block)
        if weight_gradient is not None:
            weight_gradient[columns] = weight_sum
        if bias_gradient is not None:
            bias_gradient[columns] = bias_sum
    return hidden_sum.to(hidden.dtype), weight_gradient, bias_gradient


def chunk_logits(hidden: Tensor, weight: Tensor, head: Head) -> Tensor:
    """[C, W] logits of `head` before the temperature, in float32 or float64; operands are those of `product`."""
    logits = product(hidden, weight.T)
    if head.bias is not None:
        logits += head.bias
    if head.logits_dtype is not None:
        logits = logits.to(head.logits_dtype).to(logits.dtype)
    return logits.div_(head.softcap).tanh_().mul_(head.softcap) if head.softcap else logits


def _slabs(head: Head) -> Iterator[tuple[slice, Head]]:
    """The head by slabs of its rows, which are columns of the logits; their weights as `product` takes them."""
    for columns in _spans(len(head.weight), _SLAB_COLUMNS):
        bias = None if head.bias is None else head.bias[columns]
        yield columns, replace(head, weight=product_operand(head.weight[columns]), bias=bias)


def _spans(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
