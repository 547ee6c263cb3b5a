"""`policy_loss` by its Triton kernel: one launch forward, one multiplication backward.

Legend: T tokens, S sequences.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from polaris_kernels.checks import check_once
from polaris_kernels.policy_loss.kernel import loss_kernel
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.policy_loss.totals import MAXIMA, SUMS

_SEGMENT = 4096


def tiled_forward(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor | None,
    proximal: Tensor,
    sequence_lengths: Tensor | None,
    settings: PolicyLossSettings,
    block: int = 1024,
) -> tuple[Tensor, Tensor]:
    """[13] float64: loss, sums and maxima in the order of `totals`; and the gradient [T] float32 of the undivided loss."""
    by_sequence = settings.kind in ("grpo", "gspo")
    segments = len(sequence_lengths) if by_sequence and sequence_lengths is not None else triton.cdiv(len(logprob), _SEGMENT)
    bounds = torch.nn.functional.pad(sequence_lengths.cumsum(0), (1, 0)) if by_sequence and sequence_lengths is not None else None
    gradient = torch.empty_like(logprob)
    totals = logprob.new_zeros(1 + len(SUMS) + len(MAXIMA), dtype=torch.float64)
    totals[1 + len(SUMS) :] = -torch.inf
    if not segments:
        return totals, gradient
    loss_kernel[(segments,)](
        logprob, behaviour_logprob, advantage, mask, proximal, bounds, gradient,
        logprob.new_empty(segments, 16), totals, torch.zeros(1, dtype=torch.int32, device=logprob.device), len(logprob), segments,
        settings.clip_low, settings.clip_high, settings.dual_clip, settings.correction_low, settings.correction_high,
        KIND=settings.kind, DUAL=bool(settings.dual_clip), CORRECTION=settings.correction, MASK=mask is not None,
        SEQUENCES=by_sequence, SEGMENT=_SEGMENT, BLOCK=block, MERGE=32, num_warps=4,
    )  # fmt: skip
    return totals, gradient


class TiledPolicyLoss(torch.autograd.Function):
    """The undivided loss, with the gradient that the forward worked out."""

    @staticmethod
    def forward(
        ctx: Any,
        logprob: Tensor,
        behaviour_logprob: Tensor,
        advantage: Tensor,
        mask: Tensor | None,
        proximal: Tensor,
        sequence_lengths: Tensor | None,
        settings: PolicyLossSettings,
    ) -> tuple[Tensor, Tensor]:
        totals, gradient = tiled_forward(logprob, behaviour_logprob, advantage, mask, proximal, sequence_lengths, settings)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(totals)
        return totals[0].to(logprob.dtype), totals

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        check_once("policy_loss")
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient, None, None, None, None, None, None
