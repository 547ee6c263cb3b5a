"""Launches of the Triton kernels of `logprob_from_logits`."""

from __future__ import annotations

from dataclasses import dataclass

import triton
from torch import Tensor

from polaris_kernels.logprob_from_logits.kernel import backward_kernel, forward_kernel
from polaris_kernels.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Rows and columns that a program holds at a time."""

    rows: int
    block: int
    warps: int


FORWARD = Shape(rows=1, block=8192, warps=8)
BACKWARD = Shape(rows=1, block=4096, warps=8)


def tiled_forward(
    logits: Tensor, targets: Tensor, temperature: Tensor, ignore_index: int, shape: Shape = FORWARD
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [T] in nats, and [2, T] the maxima and log2 of the softmax's sums, all float32."""
    rows, vocabulary = logits.shape
    # Apart from each other: a custom operator of torch may not return two views of one tensor.
    logprob, entropy = temperature.new_empty(rows), temperature.new_empty(rows)
    softmax = temperature.new_empty(2, rows)
    if rows:
        forward_kernel[(triton.cdiv(rows, shape.rows),)](
            logits, targets, temperature, logprob, entropy, *softmax, rows, vocabulary, logits.stride(0), ignore_index,
            ROWS=shape.rows, BLOCK=shape.block, num_warps=shape.warps,
        )  # fmt: skip
    return logprob, entropy, softmax


def tiled_backward(logits: Tensor, gradient: Tensor, row: Rows, shape: Shape = BACKWARD) -> None:
    """Write the gradient of the logits into `gradient` [T, V], of the strides of `logits`; it may be `logits` itself."""
    assert gradient.stride() == logits.stride()
    rows, vocabulary = logits.shape
    if rows:
        backward_kernel[(triton.cdiv(rows, shape.rows), triton.cdiv(vocabulary, shape.block))](
            logits, row.targets, row.temperature, row.maximum, row.log_total, row.entropy, row.logprob_gradient, row.entropy_gradient,
            gradient, rows, vocabulary, logits.stride(0),
            ROWS=shape.rows, BLOCK=shape.block, ENTROPY=row.entropy_gradient is not None, num_warps=shape.warps,
        )  # fmt: skip
