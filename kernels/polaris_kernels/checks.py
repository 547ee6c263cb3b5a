"""Checks of arguments, and which implementation serves them."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from polaris_kernels.head import Head
from polaris_kernels.products import HALF
from polaris_kernels.rows import result_dtype

P = ParamSpec("P")
R = TypeVar("R")
_HAS_TRITON = importlib.util.find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_GREEDY = "for greedy samples pass 1.0"
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def uses_triton(tensor: Tensor) -> bool:
    """Whether Triton serves this tensor: on CUDA, except for float64; everything else takes plain torch in chunks."""
    return _HAS_TRITON and tensor.is_cuda and tensor.dtype != torch.float64


def may_look(values: Tensor) -> bool:
    """Whether a check may depend on values: not in a graph that is being captured, nor where that waits for the device."""
    if torch.compiler.is_compiling():
        return False
    return values.device.type == "cpu" or os.environ.get("POLARIS_KERNELS_DEBUG") == "1"


def as_it_is(function: Callable[P, R]) -> Callable[P, R]:
    """The function, in which torch.compile finds nothing to compile; where nobody compiles it is not loaded, which takes seconds."""
    dynamo = sys.modules.get("torch._dynamo")
    return function if dynamo is None else dynamo.disable(function)


def is_captured(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, in which nothing may depend on values."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def check_once(operation: str) -> None:
    """Raise RuntimeError in a backward that is itself recorded (`create_graph=True`): nobody has the gradient of the gradient."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{operation} is differentiable once: call backward or torch.autograd.grad without create_graph=True")


def check_backward_mode(operation: str, *tensors: Tensor | None) -> None:
    """Raise RuntimeError for a tensor with a forward-mode tangent, which a custom operator of torch would drop without a word."""
    if torch.compiler.is_compiling():
        return
    if any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise RuntimeError(f"{operation} has no forward-mode derivative (jvp): use backward or torch.autograd.grad")


def check_plain(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all are plain tensors, not DTensors, and lie on one device."""
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in present.items():
        if hasattr(tensor, "full_tensor"):
            raise ValueError(f"{name} is a DTensor; polaris_kernels take plain tensors: gather it first, with {name}.full_tensor()")
    if len({tensor.device for tensor in present.values()}) > 1:
        devices = ", ".join(f"{name} is on {tensor.device}" for name, tensor in present.items())
        raise ValueError(f"{devices}: move all to one device")


def check_head(hidden: Tensor, head: Head) -> None:
    """Raise ValueError where hidden states [T, H] and the head do not fit each other."""
    weight, bias = head.weight, head.bias
    check_plain(hidden=hidden, weight=weight, bias=bias)
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        shapes = f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        remedy = "pass hidden.flatten(0, 1), and targets.flatten()" if hidden.ndim == 3 else "is the weight transposed?"
        raise ValueError(f"needs hidden [T, H] and weight [V, H], but got {shapes}: {remedy}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; pass one value per row of weight, [{len(weight)}]")
    if hidden.dtype not in DTYPES or any(t is not None and t.dtype != hidden.dtype for t in (weight, bias)):
        found = [t.dtype for t in (hidden, weight, bias) if t is not None]
        remedy, half = "cast all to one floating-point dtype", next((dtype for dtype in found if dtype in HALF), None)
        if half is not None:
            remedy += f"; the {half} tensors themselves are best, since their products are summed in float32: a .float() copy gains nothing"
        raise ValueError(f"hidden, weight and bias have dtypes {', '.join(map(str, found))}: {remedy}")
    if not 0 <= head.softcap < math.inf:
        raise ValueError(f"softcap = {head.softcap} must be a finite number above 0, or None for none")
    if head.logits_dtype not in (None, *DTYPES):
        raise ValueError(f"logits_dtype = {head.logits_dtype} must be a floating-point dtype or None")
    _check_main_grad(head)


def _check_main_grad(head: Head) -> None:
    """Raise ValueError where the gradient of the head's weight cannot be added to its `main_grad`."""
    weight, main_grad = head.weight, head.main_grad
    if main_grad is None:
        return
    dtype = result_dtype(weight)
    if hasattr(main_grad, "full_tensor"):
        raise ValueError("main_grad is a DTensor: pass a plain buffer for all rows of weight, into which nothing has to be gathered")
    check_plain(weight=weight, main_grad=main_grad)
    if main_grad.shape != weight.shape or main_grad.dtype != dtype:
        raise ValueError(
            f"main_grad is {main_grad.dtype} {tuple(main_grad.shape)}; the gradient of weight is added in {dtype}: "
            f"pass torch.zeros_like(weight, dtype={dtype}), {tuple(weight.shape)}"
        )
    if not main_grad.is_contiguous() or main_grad.requires_grad:
        raise ValueError("main_grad must be contiguous and require no gradient: pass a buffer, a new one or main_grad.detach()")
    if torch.is_grad_enabled() and not weight.requires_grad:
        raise ValueError("main_grad takes the gradient of weight, which requires none: leave it out, or call weight.requires_grad_()")


def check_rows(rows: Tensor, targets: Tensor, temperature: float | Tensor, ignore_index: int, vocabulary: int | None) -> Tensor:
    """Raise ValueError for row values that do not fit; return the temperature as [T] in the dtype of the results.

    A vocabulary of None is not known here, and targets are not compared with it.
    """
    check_plain(rows=rows, targets=targets)
    if isinstance(temperature, Tensor):
        check_plain(temperature=temperature)
    if targets.shape != rows.shape[:1] or targets.dtype not in INTEGERS:
        raise ValueError(f"targets are {targets.dtype} {tuple(targets.shape)}; pass one integer per row, [{len(rows)}]")
    if isinstance(temperature, Tensor) and temperature.shape not in ((), targets.shape):
        raise ValueError(f"temperature has shape {tuple(temperature.shape)}; pass a number or one value per row, [{len(targets)}]")
    if temperature is None or isinstance(temperature, (list, tuple)) or not (isinstance(temperature, Tensor) or 0 < temperature < math.inf):
        raise ValueError(f"temperature = {temperature} must be a finite number above 0, or one per row in a tensor; {_GREEDY}")
    if isinstance(temperature, Tensor):
        expanded = temperature.detach().to(rows.device, result_dtype(rows)).expand(len(targets)).contiguous()
    else:  # filled on the device: a graph that is being captured may not copy from the host
        expanded = torch.full(targets.shape, temperature, dtype=result_dtype(rows), device=rows.device)
    if may_look(targets):
        if vocabulary is not None:
            check_targets(targets[targets != ignore_index], vocabulary)
        _check_temperature(expanded)
    return expanded


def check_targets(targets: Tensor, vocabulary: int) -> None:
    """Raise ValueError unless all lie in [0, vocabulary); waits for the device."""
    if len(targets) and (targets.min() < 0 or targets.max() >= vocabulary):
        span = f"{int(targets.min())} to {int(targets.max())}"
        remedy = "set rows without a target to ignore_index, -100 by default; where weight has a part of the vocabulary, pass group"
        raise ValueError(f"targets span {span}, outside [0, {vocabulary}): {remedy}")


def _check_temperature(temperature: Tensor) -> None:
    wrong = temperature[~((temperature > 0) & temperature.isfinite())]
    if len(wrong):
        raise ValueError(f"temperature = {float(wrong[0])} must be a finite number above 0 in every row; {_GREEDY}")
