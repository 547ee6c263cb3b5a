"""One chunk of `linear_policy_loss` by the Triton kernels. Legend: C rows of the chunk, H hidden size, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import triton
from torch import Tensor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.tiled import tiled_forward
from polaris_kernels.linear_policy_loss.kernel import gradient_kernel
from polaris_kernels.tiles import Tiles

ROWS = 4096
"""Rows of a chunk: its logit gradients take 1.2 GB in half precision at V = 151,936."""


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
    logprob, entropy, softmax, maxima = tiled_forward(hidden, head, targets, temperature, -100, tiles, kept)
    grid = (triton.cdiv(rows, 16), triton.cdiv(vocabulary, tiles.block_v))
    gradient_kernel[grid](
        kept, maxima, targets, temperature, *softmax, logprob, coefficient(logprob), rows, kept.stride(0), head.softcap,
        ROWS=16, TILE=tiles.block_v, SOFTCAP=bool(head.softcap), num_warps=8,
    )  # fmt: skip
    return logprob, entropy, kept
