"""The definition of `policy_loss` in plain torch; it also serves every device that Triton does not.

Legend: T tokens, S sequences.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from polaris_kernels.policy_loss.base import TokenLoss
from polaris_kernels.policy_loss.correction import Correction, importance_correction
from polaris_kernels.policy_loss.registry import LOSSES
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.token_batch import TokenBatch


def policy_loss_reference(logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the corrected token losses, before any normalisation, and the totals that `polaris_kernels.policy_loss.totals` names."""
    if batch.mask is not None:
        logprob, batch = logprob[batch.mask], replace(batch[batch.mask], mask=None)
    correction = importance_correction(batch.proximal(logprob), batch.behaviour_logprob, settings)
    token_loss = LOSSES[settings.kind].token_loss(logprob, batch, settings)
    loss = (correction.weight * token_loss.loss).sum()
    with torch.no_grad():
        return loss, _totals(logprob, batch, token_loss, correction)


def _totals(logprob: Tensor, batch: TokenBatch, token_loss: TokenLoss, correction: Correction) -> dict[str, Tensor]:
    """KL(engine || trainer) estimated on the engine's own samples (Schulman, "Approximating KL divergence").

    With the gap d = proximal_logprob - behaviour_logprob: k1 = -d (unbiased, may be negative), k3 = exp(d) - 1 - d.
    """
    gap = (batch.proximal(logprob).double() - batch.behaviour_logprob.double()).masked_fill(correction.nonfinite, 0.0)
    sums = {
        "tokens": torch.ones_like(gap),
        "clip_low": token_loss.clip_low,
        "clip_high": token_loss.clip_high,
        "clip_dual": token_loss.clip_dual,
        "truncated": correction.truncated,
        "masked": correction.masked,
        "nonfinite": correction.nonfinite,
        "kl_k1": -gap,
        "kl_k3": gap.expm1() - gap,
        "gap": gap.abs(),
    }
    totals = {name: values.double().sum() for name, values in sums.items()}
    nothing = gap.new_full((1,), -torch.inf)
    maxima = {"ratio_max": token_loss.ratio.double(), "gap_max": gap.abs()}
    return totals | {name: torch.cat([nothing, values]).max() for name, values in maxima.items()}
