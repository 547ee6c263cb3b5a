"""`linear_logprob` in plain torch, one block of rows and slab of columns at a time: no tensor ever has T * V elements.

Legend: T rows (tokens), H hidden size, V vocabulary, C rows of a block, W columns of a slab, N rows whose gradient is not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from polaris_kernels.head import Head
from polaris_kernels.products import accumulate, product, product_operand, rounded_dtype, rounded_product
from polaris_kernels.rows import Rows, result_dtype
from polaris_kernels.sampling_mask import cut_off
from polaris_kernels.softmax import add_columns, logit_gradient

_BLOCK_ROWS, _SLAB_COLUMNS = 256, 2048
_KEPT_BYTES = 320 * 2**20
"""Of logits, and of their gradients, that may be kept: 552 rows in float32 and 1,104 in bfloat16 at V = 151,936."""

Gradients = tuple[Tensor, Tensor | None, Tensor | None]
"""Those of hidden states, weight and bias."""


def chunked_forward(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    temperature: Tensor,
    ignore_index: int,
    with_entropy: bool,
    sampling_mask: Tensor | None = None,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs [T], entropies [T] (or [0]), and [2, T] the maxima and the logs of the softmax's sums, as `temperature` [T].

    The last block is padded to C rows, so every product has the same shape and a row's result does not depend on T. The logits of the
    first K rows are left in `kept` [K, V], if there is one, those that the sampler cut off too.
    """
    state = chunked_statistics(hidden, head, targets, temperature, sampling_mask, kept)
    return chunked_finish(state, targets, temperature, ignore_index, with_entropy)


def chunked_statistics(
    hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, sampling_mask: Tensor | None, kept: Tensor | None = None
) -> Tensor:
    """[4, T] the state of `add_columns` after all columns of the head; `kept` is that of `chunked_forward`."""
    size = _BLOCK_ROWS
    padding = -len(hidden) % size
    state = temperature.new_zeros(4, len(hidden) + padding)
    state[0], state[3] = -torch.inf, torch.nan
    divisor, chosen = pad(temperature, (0, padding), value=1.0), pad(targets, (0, padding), value=-1)
    for columns, slab in _slabs(head) if len(hidden) else ():
        for rows in row_blocks(len(hidden)):
            block = hidden[rows].to(slab.weight.dtype)
            logits = chunk_logits(pad(block, (0, 0, 0, size - len(block))), slab.weight, slab)
            if kept is not None:
                part = kept[rows, columns]
                part.copy_(logits[: len(part)])
            if sampling_mask is not None:
                cut_off(logits[: len(block)], sampling_mask[rows], columns.start)
            span = slice(rows.start, rows.start + size)
            add_columns(state[:, span], logits, chosen[span] - columns.start, divisor[span])
    return state[:, : len(hidden)].contiguous()


def chunked_finish(
    state: Tensor, targets: Tensor, temperature: Tensor, ignore_index: int, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The results of `chunked_forward` from the statistics [4, T] of all columns."""
    maximum, total, moment, logit = state
    ignored, log_total = targets == ignore_index, total.log()
    logprob = ((logit - maximum) / temperature - log_total).masked_fill_(ignored, 0.0)
    entropy = (log_total - moment / total).masked_fill_(ignored, 0.0) if with_entropy else temperature.new_empty(0)
    return logprob, entropy, torch.stack([maximum, log_total])


def chunked_backward(
    hidden: Tensor,
    head: Head,
    values: Rows,
    with_weight: bool,
    rounded: bool = True,
    known: tuple[Tensor, Tensor] | None = None,
) -> Gradients:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V] (or None) in their dtypes; `values` are those of the N rows.

    Sums are float32 or float64, each gradient is rounded once; that of `hidden` is left as the sum where it is not to be `rounded`. That
    of `weight` is None where it was added to the head's `main_grad`.
    Logits are worked out again but where they are `known`: those of the forward's first rows, [K, V], and which of the forward's rows
    the N are, in their order.
    """
    kept, which = known or (hidden.new_empty(0), None)
    count = 0 if which is None else int((which < len(kept)).sum())

    def slope(rows: slice, columns: slice, slab: Head) -> Tensor:
        if which is not None and rows.stop <= count:
            logits = kept[:, columns][which[rows]]
        else:
            logits = chunk_logits(hidden[rows].to(slab.weight.dtype), slab.weight, slab)
        return _gradient_of_columns(logits, values[rows], columns, head)

    if not rounded or not may_keep(hidden, head):
        return _summed_gradients(hidden, head, slope, with_weight, rounded)
    gradient = hidden.new_empty(len(hidden), len(head.weight), dtype=rounded_dtype(hidden))
    for columns, slab in _slabs(head, cast=count < len(hidden)):
        for rows in row_blocks(len(hidden)):
            gradient[rows, columns] = slope(rows, columns, slab)
    return gradients_of_kept(hidden, head, gradient, with_weight)


def rows_to_keep(hidden: Tensor, weight: Tensor) -> int:
    """How many of the first rows of `hidden` [T, H] have logits that fit, in whole blocks. T may be symbolic."""
    row_bytes = torch.sym_max(1, result_dtype(hidden).itemsize * weight.shape[0])  # a head may have no rows
    most = _KEPT_BYTES // row_bytes // _BLOCK_ROWS * _BLOCK_ROWS
    return torch.sym_min(hidden.shape[0], most)


def may_keep(hidden: Tensor, head: Head) -> bool:
    """Whether the logit gradients of these rows, [N, V] of `rounded_dtype`, fit the memory that is set aside for them."""
    return len(hidden) * len(head.weight) * rounded_dtype(hidden).itemsize <= _KEPT_BYTES


def gradients_of_kept(hidden: Tensor, head: Head, gradient: Tensor, with_weight: bool, factor: Tensor | None = None) -> Gradients:
    """What `chunked_backward` returns, from the gradient of all logits, [N, V] of `rounded_dtype`; times `factor`, if there is one."""
    factor = None if factor is None or factor == 1 else factor
    if gradient.dtype != hidden.dtype:

        def slope(rows: slice, columns: slice, slab: Head) -> Tensor:
            return gradient[rows, columns] if factor is None else gradient[rows, columns] * factor

        return _summed_gradients(hidden, head, slope, with_weight)
    hidden_gradient, (main_grad, weight_gradient) = torch.empty_like(hidden), head.place_of_gradient(with_weight)
    rounded_product(gradient, head.weight, hidden_gradient)
    if weight_gradient is not None:
        rounded_product(gradient.T, hidden, weight_gradient)
    if main_grad is not None:
        operand = product_operand(hidden) if factor is None else product_operand(hidden) * factor
        for columns in _spans(len(main_grad), _SLAB_COLUMNS):
            accumulate(main_grad[columns], product_operand(gradient[:, columns]).T, operand)
    bias_gradient = None if head.bias is None else gradient.sum(0, dtype=result_dtype(hidden)).to(hidden.dtype)
    for found in (hidden_gradient, weight_gradient, bias_gradient):
        if factor is not None and found is not None:
            found.mul_(factor)
    return hidden_gradient, weight_gradient, bias_gradient


def _summed_gradients(
    hidden: Tensor, head: Head, slope: Callable[[slice, slice, Head], Tensor], with_weight: bool, rounded: bool = True
) -> Gradients:
    """The same slab by slab; `slope` gives the gradient of the logits in some rows and columns, for which it gets the slab of the head."""
    hidden_sum = torch.zeros_like(hidden, dtype=result_dtype(hidden))
    main_grad, weight_gradient = head.place_of_gradient(with_weight)
    bias_sum = None if head.bias is None else hidden_sum.new_zeros(len(head.bias))
    operand = hidden.to(rounded_dtype(hidden)) if main_grad is None else product_operand(hidden)
    for columns, slab in _slabs(head, _KEPT_BYTES // max(1, operand.itemsize * len(hidden))):
        strip = operand.new_empty(len(hidden), len(slab.weight))
        for rows in row_blocks(len(hidden)):
            gradient = slope(rows, columns, slab)
            accumulate(hidden_sum[rows], gradient, slab.weight)
            strip[rows] = gradient
            if bias_sum is not None:
                bias_sum[columns] += gradient.sum(0)
        if weight_gradient is not None:
            rounded_product(strip.T, operand, weight_gradient[columns])
        if main_grad is not None:
            accumulate(main_grad[columns], strip.T, operand)
    hidden_gradient = hidden_sum.to(hidden.dtype) if rounded else hidden_sum
    return hidden_gradient, weight_gradient, None if bias_sum is None else bias_sum.to(hidden.dtype)


def fill_gradients(gradient: Tensor, logits: Tensor, values: Rows, head: Head) -> None:
    """Fill in the `gradient` [C, V] of all logits of some rows, which it consumes."""
    for columns in _spans(len(head.weight), _SLAB_COLUMNS):
        gradient[:, columns] = _gradient_of_columns(logits[:, columns], values, columns, head)


def _gradient_of_columns(logits: Tensor, values: Rows, columns: slice, head: Head) -> Tensor:
    """Gradient [C, W] of what the product made of C rows, from their logits in these columns, which it consumes."""
    slope = 1 - (logits / head.softcap).square_() if head.softcap else None
    mask = values.sampling_mask
    if mask is not None:
        cut_off(logits, mask, columns.start)
    gradient = logit_gradient(logits, replace(values, targets=values.targets - columns.start))
    if mask is not None:  # a target that was cut off
        cut_off(gradient, mask, columns.start, 0.0)
    return gradient if slope is None else gradient.mul_(slope)


def chunk_logits(hidden: Tensor, weight: Tensor, head: Head) -> Tensor:
    """[C, W] logits of `head` before the temperature, in float32 or float64; operands are those of `product`."""
    logits = product(hidden, weight.T)
    if head.bias is not None:
        logits += head.bias
    if head.logits_dtype is not None:
        logits = logits.to(head.logits_dtype).to(logits.dtype)
    return logits.div_(head.softcap).tanh_().mul_(head.softcap) if head.softcap else logits


def _slabs(head: Head, most: int = _SLAB_COLUMNS, cast: bool = True) -> Iterator[tuple[slice, Head]]:
    """The head by slabs of its rows, which are columns of the logits, few of them at a time; their weights `cast` to what `product` takes.

    A slab is good until the next one is asked for.
    """
    size, dtype = min(_SLAB_COLUMNS, max(64, most)), product_operand(head.weight[:0]).dtype if cast else head.weight.dtype
    # One place for all slabs that are cast: the system takes longer to hand out new memory than the cast itself.
    place = head.weight.new_empty(min(size, len(head.weight)), head.weight.shape[1], dtype=dtype) if dtype != head.weight.dtype else None
    for columns in _spans(len(head.weight), size):
        weight, bias = head.weight[columns], None if head.bias is None else head.bias[columns]
        yield columns, replace(head, weight=weight if place is None else place[: len(weight)].copy_(weight), bias=bias)


def row_blocks(total: int) -> Iterator[slice]:
    """So many rows, one product's worth at a time."""
    return _spans(total, _BLOCK_ROWS)


def _spans(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
