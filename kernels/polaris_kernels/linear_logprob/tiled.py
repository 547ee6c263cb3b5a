"""`linear_logprob` by the Triton kernels: forward, and a backward that recomputes logits slab by slab into a bounded buffer.

Legend: T rows (tokens), H hidden size, V vocabulary, N rows whose gradient is not zero.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.kernel import forward_kernel, gradient_kernel, merge_kernel
from polaris_kernels.products import accumulate, product_operand
from polaris_kernels.ranges import into_range, unscaled
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import Tiles, row_stride

_SLAB_COLUMNS = 8192
_SLAB_ROWS = 32768
_ROUND: dict[torch.dtype | None, Any] = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def tiled_forward(
    hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, ignore_index: int, tiles: Tiles, exponentials: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs and entropies [T] in nats, [2, T] the maxima and log2 of the softmax's sums, and [strips, T] maxima, all float32.

    Here and below hidden states and weight have whole columns and begin where wide loads may (`polaris_kernels.tiles`).
    With `exponentials` [T, V] a strip is one tile, and every logit's e, to the maximum of its strip, is left there.
    """
    rows, vocabulary = len(hidden), len(head.weight)
    strip = tiles.strip if exponentials is None else 1
    strips = triton.cdiv(vocabulary, strip * tiles.block_v)
    maxima, sums, weighted = temperature.new_empty(3, strips, rows)
    # Apart from each other: a custom operator of torch may not return two views of one tensor.
    logprob, entropy, chosen = (temperature.new_empty(rows) for _ in range(3))
    softmax = temperature.new_empty(2, rows)
    if rows:
        programs = min(tiles.programs, triton.cdiv(rows, tiles.block_t) * strips)
        operands, strides, options = _operands(hidden, head, tiles)
        forward_kernel[(programs,)](
            *operands, head.bias, targets, temperature, exponentials, maxima, sums, weighted, chosen,
            rows, vocabulary, strips, head.softcap, *strides, 0 if exponentials is None else exponentials.stride(0),
            STRIP=strip, PROGRAMS=programs, KEEP=exponentials is not None, **options,
        )  # fmt: skip
        merge_kernel[(triton.cdiv(rows, tiles.merge),)](
            maxima, sums, weighted, chosen, targets, temperature, logprob, entropy, *softmax,
            rows, vocabulary, strips, ignore_index, BLOCK=tiles.merge,
        )  # fmt: skip
    return logprob, entropy, softmax, maxima


def tiled_backward(
    hidden: Tensor, head: Head, values: Rows, with_weight: bool, tiles: Tiles
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V] (or None) in their dtypes; `values` are those of the N rows.

    Logit gradients live in one buffer of at most 32,768 x 8,192 numbers. Products sum in float32; the gradient of `weight`
    is rounded once.
    """
    vocabulary = len(head.weight)
    scale = None
    if hidden.dtype == torch.float16 and len(hidden):
        values, scale = into_range(values)
    hidden_sum = torch.zeros_like(hidden, dtype=torch.float32)
    weight_gradient = torch.empty_like(head.weight) if with_weight else None
    bias_gradient = torch.empty_like(head.bias) if head.bias is not None else None
    buffer = hidden.new_empty(min(len(hidden), _SLAB_ROWS) * row_stride(min(vocabulary, _SLAB_COLUMNS)))
    for first in range(0, vocabulary, _SLAB_COLUMNS):
        columns = slice(first, min(first + _SLAB_COLUMNS, vocabulary))
        width = columns.stop - first
        weight = product_operand(head.weight[columns])
        weight_sum = torch.zeros_like(weight, dtype=torch.float32) if with_weight else None
        bias_sum = values.temperature.new_zeros(width)
        for start in range(0, len(hidden), _SLAB_ROWS):
            rows = slice(start, min(start + _SLAB_ROWS, len(hidden)))
            stride = row_stride(width)
            gradient = buffer[: (rows.stop - start) * stride].view(-1, stride)[:, :width]
            _logit_gradient(hidden[rows], head, values[rows], gradient, first, tiles)
            operand = product_operand(gradient)
            accumulate(hidden_sum[rows], operand, weight)
            if weight_sum is not None:
                accumulate(weight_sum, operand.T, product_operand(hidden[rows]))
            if bias_gradient is not None:
                bias_sum += gradient.sum(0, dtype=torch.float32)
        if weight_gradient is not None and weight_sum is not None:
            weight_gradient[columns] = unscaled(weight_sum, scale)
        if bias_gradient is not None:
            bias_gradient[columns] = unscaled(bias_sum, scale)
    return unscaled(hidden_sum, scale).to(hidden.dtype), weight_gradient, bias_gradient


def _logit_gradient(hidden: Tensor, head: Head, row: Rows, gradient: Tensor, first: int, tiles: Tiles) -> None:
    rows, width = gradient.shape
    programs = min(tiles.programs, triton.cdiv(rows, tiles.block_t) * triton.cdiv(width, tiles.block_v))
    operands, strides, options = _operands(hidden, head, tiles)
    gradient_kernel[(programs,)](
        *operands, head.bias, row.targets, row.temperature, row.maximum, row.log_total, row.entropy, row.logprob_gradient,
        row.entropy_gradient, gradient,
        rows, len(head.weight), first, gradient.stride(0), head.softcap, *strides,
        PROGRAMS=programs, ENTROPY=row.entropy_gradient is not None, **options,
    )  # fmt: skip


def _operands(hidden: Tensor, head: Head, tiles: Tiles) -> tuple[tuple[Any, Any], tuple[int, int], dict[str, Any]]:
    matrices = (hidden, head.weight)
    assert hidden.shape[1] % tiles.block_h == 0, "columns come in whole blocks: see whole_columns"
    options = {
        "H": hidden.shape[1],
        "BLOCK_T": tiles.block_t,
        "BLOCK_V": tiles.block_v,
        "BLOCK_H": tiles.block_h,
        "GROUP": tiles.group,
        "TMA": tiles.tma,
        "BIAS": head.bias is not None,
        "SOFTCAP": bool(head.softcap),
        "ROUND": _ROUND.get(head.logits_dtype),
        "PRECISION": "ieee",
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
    strides = (hidden.stride(0), head.weight.stride(0))
    if not tiles.tma:
        return matrices, strides, options
    blocks = ([tiles.block_t, tiles.block_h], [tiles.block_v, tiles.block_h])
    hidden_tiles, weight_tiles = (TensorDescriptor.from_tensor(m, block) for m, block in zip(matrices, blocks, strict=True))
    return (hidden_tiles, weight_tiles), strides, options
