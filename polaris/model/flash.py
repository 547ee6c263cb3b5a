"""Which FlashAttention computes packs on a GPU: the newest that is installed and agrees with torch's own.

torch calls FlashAttention 2, which it has built in, by an operator that FlashAttention 4 (`flash-attn-4`) and 3 (`flash_attn_interface`)
can take over: about one and a half times as fast on Hopper and later, and at 64K tokens attention is most of a training step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.attention
from torch import Tensor

from polaris.errors import in_one_line
from polaris.model.attention import PackLayout, cuda_attention, pack_layout

BUILT_IN = "FlashAttention 2, torch's own"
_LENGTHS = [130, 1, 383]
_TOLERANCE = 0.02
"""Largest relative distance of two kernels in half precision, of a result or a gradient."""
_FAILURES = (ImportError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError)
"""What an implementation that does not fit this machine, torch or shape raises."""

Attend = Callable[[Tensor, Tensor, Tensor, PackLayout, float | None], Tensor]


def choose_flash(device: torch.device, dtype: torch.dtype, heads: tuple[int, int, int], attend: Attend = cuda_attention) -> tuple[str, str]:
    """Activate the best implementation for `heads` (query heads, key-value heads, their size); each is tried, forward and backward.

    Returns:
        What computes from now on, and why nothing newer does.
    """
    offered: list[str] = getattr(torch.nn.attention, "list_flash_attention_impls", list)()
    inputs, why = _inputs(device, dtype, heads), list[str]()
    truth = _tried(inputs, attend) if offered else []
    for name in sorted(offered, reverse=True):
        try:
            torch.nn.attention.activate_flash_attention_impl(name)
            distance = _distance(_tried(inputs, attend), truth)
        except _FAILURES as error:
            why.append(f"{name}: {in_one_line(error)}")
        else:
            if distance <= _TOLERANCE:
                return f"FlashAttention {name.removeprefix('FA')}", "; ".join(why)
            why.append(f"{name}: its results are {distance:.1%} from torch's own")
        if torch.nn.attention.current_flash_attention_impl() is not None:
            torch.nn.attention.restore_flash_attention_impl()
    return BUILT_IN, "; ".join(why)


def _inputs(device: torch.device, dtype: torch.dtype, heads: tuple[int, int, int]) -> list[Tensor]:
    """Query, key, value, and a gradient of the result, for a pack of three sequences."""
    queries, keys, size = heads
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(_LENGTHS), count, size) for count in (queries, keys, keys, queries)]
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


def _tried(inputs: list[Tensor], attend: Attend) -> list[Tensor]:
    """The result, and the gradients of query, key and value."""
    *given, gradient = inputs
    q, k, v = (x.detach().requires_grad_() for x in given)
    out: Any = attend(q, k, v, pack_layout(_LENGTHS, q.device), None)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), gradient)]


def _distance(found: list[Tensor], truth: list[Tensor]) -> float:
    return max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(found, truth, strict=True))
