"""Exact powers of two that keep float16 gradients in that format's range: below 65,504, with all digits down to 6.1e-5.

A loss over millions of tokens has gradients far below that. Products sum in float32, but what they multiply is float16 on CUDA, and
so is a gradient that waits for its backward. Times a power of two these keep their digits, and the division afterwards is exact.
bfloat16 and float32 have the range of float32: they need none of this, and a scale of None stands for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from polaris_kernels.rows import Rows


def power_of_two(largest: Tensor) -> Tensor:
    """For each number of `largest`, float32 and not negative, the power of two that takes it to between 2^14 and 2^15.

    At least 2^-60, for NaN and infinity, and at most 2^60, for 0. Made from bits: exact, and without waiting for the device.
    """
    exponent = largest.view(torch.int32) >> 23
    return ((268 - exponent).clamp_(127 - 60, 127 + 60) << 23).view(torch.float32)


def into_range(values: Rows) -> tuple[Rows, Tensor]:
    """The rows, at least one, with incoming gradients times a power of two, so that no logit's gradient exceeds 2^15; and that power.

    |dL/dz_j| <= (|g| + |h| (1 + entropy)) / temperature, since neither p |log p| nor p exceeds 1. A NaN does not count: it is to
    stay in its row.
    """
    bound = values.logprob_gradient.abs()
    if values.entropy_gradient is not None:
        bound = bound + values.entropy_gradient.abs() * (1 + values.entropy)
    scale = power_of_two((bound / values.temperature).nan_to_num(0.0, 0.0).amax())
    entropy_gradient = None if values.entropy_gradient is None else values.entropy_gradient * scale
    return replace(values, logprob_gradient=values.logprob_gradient * scale, entropy_gradient=entropy_gradient), scale


def unscaled(total: Tensor, scale: Tensor | None) -> Tensor:
    """A float32 sum of what was `scale` times too large, in place."""
    return total if scale is None else total.div_(scale)


def widen(scale: Tensor, numbers: Tensor, sums: Iterable[Tensor]) -> None:
    """Lower `scale` until `numbers` fit as well, and what was summed with it so far along with it, all in place."""
    lower = torch.minimum(scale, power_of_two(numbers.abs().nan_to_num(0.0, 0.0).amax()))
    for total in sums:
        total.mul_(lower / scale)
    scale.copy_(lower)


def to_keep(gradient: Tensor, dtype: torch.dtype, scale: Tensor | None, dim: int | None = None) -> tuple[Tensor, Tensor | None]:
    """A gradient, `scale` times too large, as it waits in `dtype` for its backward; and what it is too large by then.

    That is one number, or one per row with `dim` 1, of as many dimensions as the gradient. Overwrites `gradient`.
    """
    if scale is None:
        return gradient.to(dtype), None
    more = power_of_two(torch.linalg.vector_norm(gradient, math.inf, dim=dim, keepdim=True))
    return gradient.mul_(more).to(dtype), more * scale


def kept_times(gradient: Tensor, scale: Tensor | None, factor: Tensor) -> Tensor:
    """What `to_keep` kept, times the gradient of the loss: float16 is multiplied in float32 and rounded once."""
    if scale is None:
        return gradient * factor.to(gradient.dtype)
    return torch.mul(gradient, factor / scale, out=torch.empty_like(gradient))
