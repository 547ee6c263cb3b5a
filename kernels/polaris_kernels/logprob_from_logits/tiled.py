"""Launches of the Triton kernels of `logprob_from_logits`."""

from __future__ import annotations

from dataclasses import dataclass

import triton
from torch import Tensor

from polaris_kernels.logprob_from_logits.kernel import backward_kernel, forward_kernel
from polaris_kernels.rows import Rows

_BYTES = 16
"""What a thread loads at once, where every row begins at a multiple of it."""
_PROGRAMS = 16_384
"""Programs that keep every processor of a large chip busy to the end: with fewer rows, a row's gradient is divided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`threads` of a program, and the bytes of logits that each of them holds at a time."""

    threads: int = 256
    bytes: int = 64

    def constants(self, logits: Tensor) -> dict[str, int]:
        """The block as the kernels take it. Vectors depend on the layout alone, since they decide the order of a row's sums."""
        size = logits.element_size()
        aligned = logits.data_ptr() % _BYTES == 0 and logits.stride(0) * size % _BYTES == 0
        vector = _BYTES // size if aligned else 1
        return {"REPEATS": self.bytes // size // vector, "LANES": self.threads, "VECTOR": vector, "num_warps": self.threads // 32}


def tiled_forward(
    logits: Tensor, targets: Tensor, temperature: Tensor, ignore_index: int, shape: Shape = Shape(), sampling_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [T] in nats, and [2, T] the softmax's: the reference of exponentials and log2 of their sum, all float32."""
    rows, vocabulary = logits.shape
    # Apart from each other: a custom operator of torch may not return two views of one tensor.
    logprob, entropy = temperature.new_empty(rows), temperature.new_empty(rows)
    softmax = temperature.new_empty(2, rows)
    constants = shape.constants(logits)
    if rows:
        forward_kernel[(rows,)](
            logits, sampling_mask, targets, temperature, logprob, entropy, *softmax, vocabulary,
            logits.stride(0) // constants["VECTOR"], ignore_index, **constants,
        )  # fmt: skip
    return logprob, entropy, softmax


def tiled_backward(logits: Tensor, gradient: Tensor, row: Rows, ignore_index: int, shape: Shape = Shape()) -> None:
    """Write the gradient of the logits into `gradient` [T, V], of the strides of `logits`; it may be `logits` itself."""
    assert gradient.stride() == logits.stride()
    rows, vocabulary = logits.shape
    constants = shape.constants(logits)
    if not rows:
        return
    block = constants["REPEATS"] * constants["LANES"] * constants["VECTOR"]
    blocks = triton.cdiv(vocabulary, block)
    span = triton.cdiv(blocks, min(blocks, triton.cdiv(_PROGRAMS, rows)))
    parts = triton.cdiv(blocks, span)
    backward_kernel[(rows * parts,)](
        logits, row.sampling_mask, row.targets, row.temperature, row.maximum, row.log_total, row.logprob, row.entropy, row.logprob_gradient,
        row.entropy_gradient, gradient, vocabulary, logits.stride(0) // constants["VECTOR"], ignore_index, parts, span * block,
        ENTROPY=row.entropy_gradient is not None, **constants,
    )  # fmt: skip
