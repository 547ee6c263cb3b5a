"""`linear_logprob` by the Triton kernels: forward, and a backward that recomputes logits slab by slab into a bounded buffer.

Legend: T rows (tokens), H hidden size, V vocabulary, N rows whose gradient is not zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.kernel import (
    finish_kernel,
    forward_kernel,
    gradient_kernel,
    merge_kernel,
    target_kernel,
    target_logit_kernel,
)
from polaris_kernels.products import accumulate, product, product_operand, rounded_product
from polaris_kernels.ranges import into_range, unscaled
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import Tiles, row_stride

_SLAB_BYTES = 5 * 2**28
"""Of the logit gradients that exist at a time: 16,384 columns of 40,960 rows in half precision."""
_LEAST_COLUMNS = 1024
_OF_TARGETS = ("H", "BLOCK_H", "BIAS", "SOFTCAP", "ROUND", "PRECISION")
_ROUND: dict[torch.dtype | None, Any] = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def tiled_forward(
    hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, ignore_index: int, tiles: Tiles, sampling_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [T] in nats, and [2, T] the offsets and log2 of the softmax's sums, all float32.

    Here and below hidden states and weight have whole columns and begin where wide loads may (`polaris_kernels.tiles`).
    """
    statistics, _ = tiled_statistics(hidden, head, temperature, tiles, sampling_mask)
    chosen = target_logits(hidden, head, targets, tiles, sampling_mask)
    return finished(statistics, chosen, targets, temperature, len(head.weight), ignore_index, tiles)


def target_logits(hidden: Tensor, head: Head, targets: Tensor, tiles: Tiles, sampling_mask: Tensor | None = None) -> Tensor:
    """[T] float32: the logit of each row's target before the temperature; NaN where it is none of the head's rows."""
    logits = hidden.new_empty(len(hidden), dtype=torch.float32)
    if len(hidden):
        block = min(64, tiles.block_t)
        options = {name: value for name, value in _options(hidden, head, tiles).items() if name in _OF_TARGETS}
        target_logit_kernel[(triton.cdiv(len(hidden), block),)](
            hidden, head.weight, head.bias, sampling_mask, targets, logits, len(hidden), len(head.weight), head.softcap, hidden.stride(0),
            head.weight.stride(0), BLOCK=block, **options, num_warps=4, num_stages=tiles.stages,
        )  # fmt: skip
    return logits


def tiled_statistics(
    hidden: Tensor,
    head: Head,
    temperature: Tensor,
    tiles: Tiles,
    sampling_mask: Tensor | None = None,
    *,
    exponentials: Tensor | None = None,
    reference: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """[3, T] float32: offset m, sum of e = 2^(x - m) over the head's columns, sum of e log2 e; and the tiles' offsets.

    x is the logit times log2(e) / temperature. m is the largest x of the row; the second result then holds those of the tiles,
    [tiles, T]. With `reference` [T] m is that, everywhere, and the second result is empty. With `exponentials` [T, V] every e, to the
    offset of its tile, is left there.
    """
    rows, vocabulary = len(hidden), len(head.weight)
    columns = triton.cdiv(vocabulary, tiles.block_v)
    state = temperature.new_empty(3, rows)
    sums, weighted = temperature.new_empty(2, columns, rows)
    maxima = temperature.new_empty(columns if reference is None else 0, rows)
    if rows:
        matrices, strides = _operands(hidden, head, tiles)
        kept, kept_stride = _output(exponentials, tiles)
        forward_kernel[(min(tiles.programs, triton.cdiv(rows, tiles.block_t) * columns),)](
            *matrices, head.bias, sampling_mask, temperature, reference, kept, maxima, sums, weighted,
            rows, vocabulary, head.softcap, *strides, kept_stride, KEEP=exponentials is not None, **_options(hidden, head, tiles),
        )  # fmt: skip
        if reference is not None:
            state[0] = reference
        offsets = None if reference is not None else maxima
        merge_kernel[(triton.cdiv(rows, tiles.merge),)](offsets, sums, weighted, *state, rows, columns, BLOCK=tiles.merge)
    return state, maxima


def merged(parts: Tensor, tiles: Tiles) -> Tensor:
    """[3, T]: the statistics [R, 3, T] of R neighbouring ranges of columns as those of all, merged in their order."""
    offsets, sums, weighted = parts.transpose(0, 1).contiguous()
    state = parts.new_empty(parts.shape[1:])
    if rows := state.shape[1]:
        merge_kernel[(triton.cdiv(rows, tiles.merge),)](offsets, sums, weighted, *state, rows, len(parts), BLOCK=tiles.merge)
    return state


def finished(
    statistics: Tensor, chosen: Tensor, targets: Tensor, temperature: Tensor, vocabulary: int, ignore_index: int, tiles: Tiles
) -> tuple[Tensor, Tensor, Tensor]:
    """The results of `tiled_forward` from the statistics [3, T] of all `vocabulary` columns and the targets' logits [T]."""
    rows = len(targets)
    # Apart from each other: a custom operator of torch may not return two views of one tensor.
    logprob, entropy = (temperature.new_empty(rows) for _ in range(2))
    softmax = statistics[:2].clone()
    if rows:
        finish_kernel[(triton.cdiv(rows, tiles.merge),)](
            *statistics, chosen, targets, temperature, logprob, entropy, softmax[1], rows, vocabulary, ignore_index,
            BLOCK=tiles.merge, SCALE=base_2_scale(tiles),
        )  # fmt: skip
    return logprob, entropy, softmax


def tiled_backward(
    hidden: Tensor, head: Head, values: Rows, with_weight: bool, tiles: Tiles, rounded: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V] (or None) in their dtypes; `values` are those of the N rows.

    Logit gradients live in one buffer, for all rows and a slab of columns at a time: 1.25 GiB. Products sum in float32; each gradient is
    rounded once, that of `hidden` only if it is to be `rounded`. That of `weight` is None where it was added to the head's `main_grad`.
    """
    vocabulary, scale = len(head.weight), None
    if hidden.dtype == torch.float16 and len(hidden):
        values, scale = into_range(values)
    hidden_sum = torch.zeros_like(hidden, dtype=torch.float32)
    main_grad, weight_gradient = head.place_of_gradient(with_weight)
    bias_gradient = torch.empty_like(head.bias) if head.bias is not None else None
    width = _slab_columns(hidden, vocabulary, tiles)
    buffer = hidden.new_empty(len(hidden), row_stride(width))
    row, states = _of_rows(values, head.softcap, tiles), product_operand(hidden)
    for first in range(0, vocabulary, width):
        columns = slice(first, min(first + width, vocabulary))
        gradient = buffer[:, : columns.stop - first]
        _logit_gradient(hidden, head, values, row, gradient, first, tiles)
        operand = product_operand(gradient)
        accumulate(hidden_sum, operand, product_operand(head.weight[columns]))
        if main_grad is not None:
            _add_product(main_grad[columns], operand.T, states, scale)
        elif weight_gradient is not None and scale is None:
            rounded_product(operand.T, states, weight_gradient[columns])
        elif weight_gradient is not None:
            weight_gradient[columns] = unscaled(product(operand.T, states), scale)
        if bias_gradient is not None:
            bias_gradient[columns] = unscaled(gradient.sum(0, dtype=torch.float32), scale)
    del buffer, gradient, operand
    hidden_sum = unscaled(hidden_sum, scale)
    return hidden_sum.to(hidden.dtype) if rounded else hidden_sum, weight_gradient, bias_gradient


def _add_product(total: Tensor, left: Tensor, states: Tensor, scale: Tensor | None) -> None:
    """total [W, H] += left @ states over what both are too large by; `states` may have more columns (`whole_columns`)."""
    states = states[:, : total.shape[1]]
    if scale is None:
        accumulate(total, left, states)
    else:
        total += unscaled(product(left, states), scale)


def _slab_columns(hidden: Tensor, vocabulary: int, tiles: Tiles) -> int:
    """Columns of a slab for these N rows, in whole tiles: as many as `_SLAB_BYTES` hold."""
    most = _SLAB_BYTES // (max(1, len(hidden)) * hidden.element_size())
    return min(vocabulary, max(most, _LEAST_COLUMNS) // tiles.block_v * tiles.block_v)


def _of_rows(values: Rows, softcap: float, tiles: Tiles) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """What the gradient of a row's logits needs, [N] each: offset, level and slope of `gradient_kernel`, and the target's gradient.

    dL/dz_j = (g ([j = y] - p_j) - h p_j (log p_j + entropy)) / temperature, with g and h the gradients of log-prob and entropy. The
    target's comes from its float32 log-prob, so that 1 - p keeps its digits near p = 1.
    """
    offset = values.maximum + values.log_total
    # Beside an offset of 1000 its rounding would be seen in p: it goes into the factors of p, of which the kernel has one per row.
    rounded = (values.maximum - offset) + values.log_total
    up, factor = values.logprob_gradient / values.temperature, torch.exp2(-rounded)
    logprob = values.logprob.clamp(min=-1000.0)
    level, slope, target = -up, None, -torch.expm1(logprob) * up
    if values.entropy_gradient is not None:
        sideways = values.entropy_gradient / values.temperature
        slope = -math.log(2) * sideways
        level = level - sideways * values.entropy - slope * rounded
        target -= sideways * logprob.exp() * (logprob + values.entropy)
        slope *= factor
    if softcap:
        z = (values.logprob / math.log(2) + offset) * values.temperature / base_2_scale(tiles)
        target *= 1 - (z / softcap).square()
    if values.sampling_mask is not None:
        target = target.masked_fill(values.logprob == -torch.inf, 0.0)  # it was cut off
    return offset, level * factor, slope, target


def _logit_gradient(
    hidden: Tensor,
    head: Head,
    values: Rows,
    row: tuple[Tensor, Tensor, Tensor | None, Tensor],
    gradient: Tensor,
    first: int,
    tiles: Tiles,
) -> None:
    """Gradient of the logits from column `first` on into `gradient` [N, W]."""
    (rows, width), (offset, level, slope, target) = gradient.shape, row
    if not rows:
        return
    matrices, strides = _operands(hidden, head, tiles)
    output, stride = _output(gradient, tiles)
    gradient_kernel[(min(tiles.programs, triton.cdiv(rows, tiles.block_t) * triton.cdiv(width, tiles.block_v)),)](
        *matrices, head.bias, values.sampling_mask, values.temperature, offset, level, slope, output,
        rows, len(head.weight), first, width, head.softcap, *strides, stride, ENTROPY=slope is not None, **_options(hidden, head, tiles),
    )  # fmt: skip
    write_targets(gradient, values.targets, target, first, tiles)


def write_targets(matrix: Tensor, targets: Tensor, values: Tensor, first: int, tiles: Tiles) -> None:
    """matrix[t, targets[t] - first] = values[t] for every row t of `matrix` [N, W] whose target lies there."""
    rows, width = matrix.shape
    target_kernel[(triton.cdiv(rows, tiles.merge),)](matrix, targets, values, rows, first, width, matrix.stride(0), BLOCK=tiles.merge)


def _output(matrix: Tensor | None, tiles: Tiles) -> tuple[Any, int]:
    """A matrix that a kernel writes tile by tile, or nothing, as the kernel takes it; and the columns of its rows."""
    if matrix is None:
        return None, 0
    if tiles.tma:
        return TensorDescriptor.from_tensor(matrix, [tiles.block_t, tiles.block_v]), 0
    return matrix, matrix.stride(0)


def _operands(hidden: Tensor, head: Head, tiles: Tiles) -> tuple[tuple[Any, Any], tuple[int, int]]:
    """Hidden states and weight as kernels take them, and the numbers from one row to the next."""
    matrices, strides = (hidden, head.weight), (hidden.stride(0), head.weight.stride(0))
    if not tiles.tma:
        return matrices, strides
    blocks = ([tiles.block_t, tiles.block_h], [tiles.block_v, tiles.block_h])
    hidden_tiles, weight_tiles = (TensorDescriptor.from_tensor(m, block) for m, block in zip(matrices, blocks, strict=True))
    return (hidden_tiles, weight_tiles), strides


def base_2_scale(tiles: Tiles) -> float:
    """From a logit over its temperature, as tensor cores sum it, to base 2."""
    return math.log2(math.e) * tiles.gain


def _options(hidden: Tensor, head: Head, tiles: Tiles) -> dict[str, Any]:
    """Constants of the kernels that make logits."""
    assert hidden.shape[1] % tiles.block_h == 0, "columns come in whole blocks: see whole_columns"
    return {
        "H": hidden.shape[1],
        "BLOCK_T": tiles.block_t,
        "BLOCK_V": tiles.block_v,
        "BLOCK_H": tiles.block_h,
        "GROUP": tiles.group,
        "TMA": tiles.tma,
        "BIAS": head.bias is not None,
        "SOFTCAP": bool(head.softcap),
        "ROUND": _ROUND.get(head.logits_dtype),
        "PRECISION": tiles.precision,
        "SCALE": base_2_scale(tiles),
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
