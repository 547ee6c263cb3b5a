"""Importance weights from the engine that sampled a token to the trainer that differentiates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from polaris_kernels.policy_loss.settings import PolicyLossSettings, SequenceCorrection
from polaris_kernels.token_batch import LOG_RATIO_LIMIT, TokenBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """`weight` [R] without gradient; [R] bool where it was cut to its cap, set to 0 by the mask, or 0 for want of a log-prob."""

    weight: Tensor
    truncated: Tensor
    masked: Tensor
    nonfinite: Tensor


def of_sequences(settings: PolicyLossSettings) -> bool:
    """Whether the correction needs all log-probs of a sequence."""
    return settings.correction in get_args(SequenceCorrection)


def importance_correction(batch: TokenBatch, settings: PolicyLossSettings) -> Correction:
    """Weights of the way from the engine to the proximal policy, by w = exp(proximal_logprob - behaviour_logprob), token by token.

    "off": 1. "tis": min(w, correction_high), truncated importance sampling (Yao et al. 2025). "mask": w where it lies in
    [correction_low, correction_high], else 0 (IcePop, Ling team 2025). "sequence_tis" and "sequence_mask": the same with the product of
    w over the sequence for w, so that a whole sequence is cut or left out (TRL's default is the mask). "geometric_mask": 1 where the
    geometric mean of w over the sequence lies between the bounds, else 0 (SkyRL's default): a filter that grows no stricter with length.
    Except under "off" a token whose engine log-prob is not finite has weight 0, and no part in its sequence's ratio; a trainer
    log-prob that is not finite stays visible in the loss.
    """
    nonfinite = ~batch.behaviour_logprob.isfinite()
    log_ratio = (batch.proximal() - batch.behaviour_logprob).detach()
    if of_sequences(settings):
        log_ratio = _of_sequence(batch, log_ratio, nonfinite, mean=settings.correction == "geometric_mask")
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    never = torch.zeros_like(nonfinite)
    if settings.correction == "off":
        return Correction(weight=torch.ones_like(ratio), truncated=never, masked=never, nonfinite=nonfinite)
    low, high = settings.correction_bounds
    outside = ~nonfinite & (ratio > high)
    if settings.correction in ("tis", "sequence_tis"):
        weight = ratio.clamp(max=high).masked_fill(nonfinite, 0.0)
        return Correction(weight=weight, truncated=outside, masked=never, nonfinite=nonfinite)
    outside |= ~nonfinite & (ratio < low)
    kept = torch.ones_like(ratio) if settings.correction == "geometric_mask" else ratio
    return Correction(weight=kept.masked_fill(outside | nonfinite, 0.0), truncated=never, masked=outside, nonfinite=nonfinite)


def _of_sequence(batch: TokenBatch, log_ratio: Tensor, nonfinite: Tensor, mean: bool) -> Tensor:
    """Sum or mean [R] of the finite log-ratios of each token's sequence; in float64, since thousands of them may cancel."""
    lengths, owner = batch.sequences()
    finite = (~nonfinite).double()
    total, count = (
        values.new_zeros(len(lengths)).index_add(0, owner, values) for values in (log_ratio.double().where(~nonfinite, 0.0), finite)
    )
    return (total / count.clamp(min=1) if mean else total)[owner].to(log_ratio.dtype)
