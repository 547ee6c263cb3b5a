"""`policy_loss` by its Triton kernel: one launch forward, one multiplication backward.

Legend: T tokens, S sequences.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from polaris_kernels.checks import check_once, is_captured
from polaris_kernels.policy_loss.kernel import loss_kernel
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.policy_loss.totals import MAXIMA, SUMS
from polaris_kernels.token_batch import TokenBatch

_SEGMENT = 1024
"""Tokens of a program: 40 programs for 40,960 tokens."""
_TOTALS = len(SUMS) + len(MAXIMA)
_COUNTERS = 1024
_counters: dict[torch.device, deque[Tensor]] = {}


def tiled_forward(
    logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings, denominator: float | Tensor = 1.0, block: int = 1024
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, a scalar; [12] float64 sums and maxima in the order of `totals`; and the gradient [T] of the loss. One launch.

    A denominator in the memory of the tensors' device is read there; one on the host is an argument.
    """
    logprob, device = logprob.contiguous(), logprob.device
    tokens, lengths, mask = len(logprob), None, batch.mask
    if settings.kind in ("grpo", "gspo") and batch.sequence_lengths is not None and len(batch.sequence_lengths):
        lengths = batch.sequence_lengths.contiguous()
    loaded = isinstance(denominator, Tensor) and denominator.device == device
    low, high = settings.correction_bounds
    segments = max(1, -(-tokens // _SEGMENT) if lengths is None else len(lengths))
    gradient, loss = torch.empty_like(logprob), logprob.new_empty(())
    totals = torch.empty(_TOTALS, dtype=torch.float64, device=device)
    loss_kernel[(segments,)](
        logprob, batch.behaviour_logprob.contiguous(), batch.advantage.contiguous(), None if mask is None else mask.contiguous(),
        logprob if batch.proximal_logprob is None else batch.proximal_logprob.contiguous(), lengths,
        denominator if loaded else float(denominator), loss, totals, gradient, logprob.new_empty(segments, 16), _counter(device),
        tokens, segments, settings.clip_low, settings.clip_high, settings.dual_clip, low, high,
        KIND=settings.kind, DUAL=bool(settings.dual_clip), CORRECTION=settings.correction, MASK=mask is not None,
        SEQUENCES=lengths is not None, LOADED=loaded, SEGMENT=_SEGMENT, BLOCK=block, MERGE=32, num_warps=4,
    )  # fmt: skip
    return loss, totals, gradient


def _counter(device: torch.device) -> Tensor:
    """A zero that no kernel in flight counts on; the kernel leaves it as it was.

    Calls take turns, so that those of several streams do not share one. A call that is being captured in a graph keeps its own for
    good: the graph may be replayed beside anything.
    """
    if torch.compiler.is_compiling():
        return torch.zeros(1, dtype=torch.int32, device=device)
    turns = _counters.setdefault(device, deque())
    captured = is_captured(device)
    if not turns and captured:
        return torch.zeros(1, dtype=torch.int32, device=device)  # the graph fills it before each replay
    if not turns:
        turns.extend(torch.zeros(_COUNTERS, 4, dtype=torch.int32, device=device).unbind())  # 16 bytes apart, as Triton likes pointers
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()  # once: other streams use them as well
    counter = turns.popleft()
    if not captured:
        turns.append(counter)
    return counter


class TiledPolicyLoss(torch.autograd.Function):
    """A loss that was worked out together with its gradient, as a function of the log-probs."""

    @staticmethod
    def forward(ctx: Any, logprob: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor | None, ...]:
        check_once("policy_loss")
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient, None, None
