"""Importance weights from the engine that sampled a token to the trainer that differentiates it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polaris_kernels.policy_loss.base import LOG_RATIO_LIMIT
from polaris_kernels.policy_loss.settings import PolicyLossSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """`weight` [R] without gradient; [R] bool where it was cut to its cap, set to 0 by the mask, or 0 for want of a log-prob."""

    weight: Tensor
    truncated: Tensor
    masked: Tensor
    nonfinite: Tensor


def importance_correction(proximal_logprob: Tensor, behaviour_logprob: Tensor, settings: PolicyLossSettings) -> Correction:
    """Weights for w = exp(proximal_logprob - behaviour_logprob), both [R]: the proximal policy and the engine, in nats.

    "off": 1. "tis": min(w, correction_high), truncated importance sampling (Yao et al. 2025). "mask": w where it lies in
    [correction_low, correction_high], else 0 (IcePop, Ling team 2025). Under "tis" and "mask" a token whose engine log-prob
    is not finite has weight 0; a trainer log-prob that is not finite stays visible in the loss.
    """
    proximal_logprob, behaviour_logprob = proximal_logprob.detach(), behaviour_logprob.detach()
    nonfinite = ~behaviour_logprob.isfinite()
    ratio = (proximal_logprob - behaviour_logprob).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    never = torch.zeros_like(nonfinite)
    if settings.correction == "off":
        return Correction(weight=torch.ones_like(ratio), truncated=never, masked=never, nonfinite=nonfinite)
    outside = ~nonfinite & (ratio > settings.correction_high)
    if settings.correction == "tis":
        weight = ratio.clamp(max=settings.correction_high).masked_fill(nonfinite, 0.0)
        return Correction(weight=weight, truncated=outside, masked=never, nonfinite=nonfinite)
    outside |= ~nonfinite & (ratio < settings.correction_low)
    return Correction(weight=ratio.masked_fill(outside | nonfinite, 0.0), truncated=never, masked=outside, nonfinite=nonfinite)
