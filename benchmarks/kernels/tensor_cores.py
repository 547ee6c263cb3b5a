"""Sums of products as NVIDIA's tensor cores make them, bit for bit, in plain torch.

A tensor core adds a few products to its float32 accumulator at once. It aligns all addends to the largest of their exponents (a
product's is the sum of its factors', before any carry), drops what lies more than `fraction` bits below it, adds exactly, and drops what
float32 cannot hold, always toward zero. With two bits more than float32 has (Hopper) that loses 0, 1/4, 1/2 or 3/4 of a unit in the last
place per step, 3/8 on average; with one bit more (Ampere) 1/4. A sum that grows evenly to z thereby loses z times LOSS times its steps.

Sources: Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021 (truncation, Volta to Ampere);
Xie, Wang, Yang and Yang, "MMA-Sim", arXiv 2511.10909, and Khattak and Mikaitis, "Accurate models of NVIDIA tensor cores", arXiv 2512.07004
(bit-accurate on hardware up to Blackwell), from which the constants below are. Infinity, NaN and subnormal numbers are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DIGITS = 23
_NOTHING = -900
"""Exponent of a zero: below that of any float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCore:
    """`products` are added at once, aligned to `fraction` bits below the leading bit of the largest addend.

    `nearest` rounds each sum to the nearest float32 instead, which no NVIDIA chip does.
    """

    products: int
    fraction: int
    nearest: bool = False


HOPPER = TensorCore(products=16, fraction=25)
"""wgmma m64nNk16 of bfloat16 and float16; Blackwell's tcgen05 is the same."""
HOPPER_TF32 = TensorCore(products=8, fraction=25)
AMPERE = TensorCore(products=8, fraction=24)
"""mma m16n8k16 of bfloat16 and float16, which is two sums of eight; Ada is the same."""
AMPERE_TF32 = TensorCore(products=4, fraction=24)
FMA = TensorCore(products=1, fraction=52, nearest=True)
"""No tensor core: one product after the other, each sum rounded to the nearest float32, as float32 operands are multiplied by Triton."""


def dot(core: TensorCore, left: Tensor, right: Tensor, total: Tensor | None = None) -> Tensor:
    """total + sum_k left[..., k] right[..., k] as the core adds it, [...] float64 that holds float32 values.

    `left` and `right` broadcast; they are float32 or half precision of at most 12 significant bits per product's factor.
    """
    left, right = left.double(), right.double()
    left_exponent, right_exponent = _exponent(left), _exponent(right)
    shape = torch.broadcast_shapes(left.shape, right.shape)[:-1]
    total = left.new_zeros(shape) if total is None else total.double().expand(shape)
    for start in range(0, left.shape[-1], core.products):
        few = slice(start, start + core.products)
        products = left[..., few] * right[..., few]
        largest = (left_exponent[..., few] + right_exponent[..., few]).amax(-1)
        largest = torch.maximum(largest, _exponent(total))
        unit = _two_to(largest - core.fraction)
        total = (products / unit.unsqueeze(-1)).trunc_().sum(-1).add_((total / unit).trunc_()).mul_(unit)
        total = total.float().double() if core.nearest else _truncated(total)
    return total


def dot_in_three(core: TensorCore, left: Tensor, right: Tensor, block: int) -> Tensor:
    """The same of float32 matrices by three products of tensor cores each, as Triton's `input_precision="tf32x3"` makes them.

    Each factor is the nearest tf32 number and what is left of it. Over `block` products the two mixed sums come first and the large ones
    on top; sums of blocks are added in float32, to the nearest.
    """
    total = torch.zeros((), dtype=torch.float32)
    for a, b in zip(left.split(block, -1), right.split(block, -1), strict=True):
        (large_a, small_a), (large_b, small_b) = _in_two(a), _in_two(b)
        part = dot(core, small_a, large_b)
        part = dot(core, large_a, small_b, part)
        total = total + dot(core, large_a, large_b, part).float()
    return total.double()


def _in_two(values: Tensor) -> tuple[Tensor, Tensor]:
    """float32 values as tf32 numbers: the nearest, ties away from zero, and of the rest what a tensor core reads, its first 11 bits."""
    large = ((values.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return large, ((values - large).view(torch.int32) & ~0x1FFF).view(torch.float32)


def _truncated(values: Tensor) -> Tensor:
    """Toward zero to the digits of float32."""
    unit = _two_to(_exponent(values) - _DIGITS)
    return (values / unit).trunc_().mul_(unit)


def _exponent(values: Tensor) -> Tensor:
    """floor(log2 |value|) as int64, of float64."""
    exponent = ((values.view(torch.int64) >> 52) & 0x7FF) - 1023
    return exponent.clamp_(min=_NOTHING)


def _two_to(exponent: Tensor) -> Tensor:
    return ((exponent + 1023) << 52).view(torch.float64)
