"""Matrix products that sum and return float32 (float64 for float64), whatever the operands, the device and autocast."""

from __future__ import annotations

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
