"""Matrix products that sum in float32 (float64 for float64), whatever the operands, the device and autocast.

Most return that sum. Only CUDA returns it from a product of half-precision matrices; torch on CPU rounds it to their format, so there
they are cast to float32 first. A result that is rounded anyway may come from a half-precision product: `rounded_product`.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def product_operand(matrix: Tensor) -> Tensor:
    """The matrix as products take it: only CUDA returns float32 from a product of half-precision matrices."""
    return matrix.float() if matrix.dtype in HALF and not matrix.is_cuda else matrix


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right; half-precision operands on CUDA only (see `product_operand`)."""
    with torch.autocast(left.device.type, enabled=False):
        return torch.mm(left, right, out_dtype=torch.float32) if left.dtype in HALF else torch.mm(left, right)


def accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place, where `total` is float32 or float64."""
    if left.dtype in HALF:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(left, right)


def rounded_product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out = left @ right, summed in float32 (float64 for float64) and rounded once to the dtype of `out`, which is theirs on CUDA."""
    matmul = torch.backends.cuda.matmul
    allowed = matmul.allow_bf16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction_split_k
    matmul.allow_bf16_reduced_precision_reduction = False  # of the parts of a long sum, which cuBLAS may add in bfloat16
    try:
        # Autocast leaves a product alone that is told where to go.
        same = left.dtype == out.dtype
        result = torch.mm(left, right, out=out if same else left.new_empty(out.shape))
    finally:
        matmul.allow_bf16_reduced_precision_reduction = allowed
    if not same:
        out.copy_(result)


def rounded_dtype(matrix: Tensor) -> torch.dtype:
    """The dtype in which `rounded_product` multiplies such matrices on CPU: their own, or float32 where that would be slow.

    bfloat16 takes instructions that not every processor has; torch multiplies float16 without any.
    """
    slow = matrix.dtype == torch.float16 or (matrix.dtype == torch.bfloat16 and not (matrix.is_cuda or _multiplies_bfloat16()))
    return torch.float32 if slow else matrix.dtype


@functools.cache
def _multiplies_bfloat16() -> bool:
    # Private, but the only question of its kind that every supported torch answers.
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.backends.mkldnn.is_available() and bool(has_instructions())
