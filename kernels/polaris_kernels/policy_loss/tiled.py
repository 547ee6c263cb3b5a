"""`policy_loss` by its Triton kernel: one launch forward, one multiplication backward.

Legend: T tokens, S sequences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import triton
from torch import Tensor

from polaris_kernels.checks import check_once
from polaris_kernels.policy_loss.kernel import loss_kernel
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.policy_loss.totals import MAXIMA, SUMS
from polaris_kernels.token_batch import TokenBatch

_SEGMENT = 4096


def tiled_forward(logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings, block: int = 1024) -> tuple[Tensor, Tensor]:
    """[13] float64: loss, sums and maxima in the order of `totals`; and the gradient [T] float32 of the undivided loss."""
    batch = replace(batch, logprob=logprob)
    lengths = batch.sequence_lengths if settings.kind in ("grpo", "gspo") else None
    low, high = settings.correction_bounds
    segments = triton.cdiv(len(logprob), _SEGMENT) if lengths is None else len(lengths)
    bounds = None if lengths is None else torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    mask = None if batch.mask is None else batch.mask.contiguous()
    gradient = torch.empty_like(logprob)
    totals = logprob.new_zeros(1 + len(SUMS) + len(MAXIMA), dtype=torch.float64)
    totals[1 + len(SUMS) :] = -torch.inf
    if not segments:
        return totals, gradient
    loss_kernel[(segments,)](
        logprob, batch.behaviour_logprob.contiguous(), batch.advantage.contiguous(), mask, batch.proximal().contiguous(), bounds,
        gradient, logprob.new_empty(segments, 16), totals, torch.zeros(1, dtype=torch.int32, device=logprob.device), len(logprob), segments,
        settings.clip_low, settings.clip_high, settings.dual_clip, low, high,
        KIND=settings.kind, DUAL=bool(settings.dual_clip), CORRECTION=settings.correction, MASK=mask is not None,
        SEQUENCES=lengths is not None, SEGMENT=_SEGMENT, BLOCK=block, MERGE=32, num_warps=4,
    )  # fmt: skip
    return totals, gradient


class TiledPolicyLoss(torch.autograd.Function):
    """The undivided loss of contiguous log-probs, with the gradient that the forward worked out."""

    @staticmethod
    def forward(ctx: Any, logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings) -> tuple[Tensor, Tensor]:
        totals, gradient = tiled_forward(logprob, batch, settings)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(totals)
        return totals[0].to(logprob.dtype), totals

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        check_once("policy_loss")
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient, None, None
