"""Checks of arguments, and which implementation serves them."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from polaris_kernels.head import Head
from polaris_kernels.rows import result_dtype

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def uses_triton(tensor: Tensor) -> bool:
    """Whether Triton serves this tensor: on CUDA, except for float64; everything else takes plain torch in chunks."""
    return _HAS_TRITON and tensor.is_cuda and tensor.dtype != torch.float64


def check_head(hidden: Tensor, head: Head) -> None:
    """Raise ValueError where hidden states [T, H] and the head do not fit each other."""
    weight, bias = head.weight, head.bias
    if any(hasattr(tensor, "full_tensor") for tensor in (hidden, weight, bias)):
        raise ValueError("polaris_kernels take plain tensors, not DTensor: gather first, for example with weight.full_tensor()")
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"needs hidden [T, H] and weight [V, H], but got {tuple(hidden.shape)} and {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; pass one value per row of weight, [{len(weight)}]")
    if hidden.dtype not in _DTYPES or any(t is not None and t.dtype != hidden.dtype for t in (weight, bias)):
        dtypes = ", ".join(str(t.dtype) for t in (hidden, weight, bias) if t is not None)
        raise ValueError(f"hidden, weight and bias have dtypes {dtypes}: cast all to one floating-point dtype")
    if head.softcap < 0:
        raise ValueError(f"softcap = {head.softcap} must be above 0, or None for none")
    if head.logits_dtype not in (None, *_DTYPES):
        raise ValueError(f"logits_dtype = {head.logits_dtype} must be a floating-point dtype or None")


def check_rows(rows: Tensor, targets: Tensor, temperature: float | Tensor, ignore_index: int, vocabulary: int) -> Tensor:
    """Raise ValueError for row values that do not fit; return the temperature as [T] in the dtype of the results."""
    if targets.shape != rows.shape[:1] or targets.is_floating_point():
        raise ValueError(f"targets are {targets.dtype} {tuple(targets.shape)}; pass one integer per row, [{len(rows)}]")
    if isinstance(temperature, Tensor) and temperature.shape not in ((), targets.shape):
        raise ValueError(f"temperature has shape {tuple(temperature.shape)}; pass a number or one value per row, [{len(targets)}]")
    expanded = torch.as_tensor(temperature, dtype=result_dtype(rows), device=rows.device).detach().expand(len(targets)).contiguous()
    if len(targets) and (not targets.is_cuda or os.environ.get("POLARIS_KERNELS_DEBUG") == "1"):
        _check_values(targets[targets != ignore_index], expanded, vocabulary)
    return expanded


def _check_values(targets: Tensor, temperature: Tensor, vocabulary: int) -> None:
    if torch.compiler.is_compiling():
        return
    if len(targets) and (targets.min() < 0 or targets.max() >= vocabulary):
        span = f"{int(targets.min())} to {int(targets.max())}"
        raise ValueError(f"targets span {span}, outside [0, {vocabulary}): set such rows to ignore_index or drop them")
    if not temperature.min() > 0:
        raise ValueError(f"temperature = {float(temperature.min())} must be above 0")
