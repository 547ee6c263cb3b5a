"""The definition of `policy_loss` in plain torch; it also serves every device and every loss that Triton does not.

Legend: T tokens, S sequences.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from polaris_kernels.policy_loss.correction import Correction, importance_correction
from polaris_kernels.policy_loss.registry import loss_of
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import LOG_RATIO_LIMIT, TokenBatch


def policy_loss_reference(logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the corrected token losses, before any normalisation, and the totals that `polaris_kernels.policy_loss.totals` names.

    The KL term is the trained policy's own and takes no correction.
    """
    batch = replace(batch, logprob=logprob)
    if batch.mask is not None:
        batch = replace(batch[batch.mask], mask=None)
    correction = importance_correction(batch, settings)
    token_loss = _token_loss(batch, settings)
    loss = correction.weight * _shared(batch, settings, token_loss.loss)
    if settings.kl:
        loss = loss + settings.kl * _shared(batch, settings, reference_k3(batch))
    total = loss.sum()
    with torch.no_grad():
        return total, _totals(batch, token_loss, correction)


def reference_k3(batch: TokenBatch) -> Tensor:
    """Estimate [T] of KL(trained || reference) on samples of the trained policy (Schulman, "Approximating KL divergence"):
    exp(d) - 1 - d with d = reference_logprob - logprob, at most 20 nats; its gradient is plain autograd's, and beyond the limit zero."""
    assert batch.reference_logprob is not None
    assert batch.logprob is not None
    gap = (batch.reference_logprob - batch.logprob).clamp(max=LOG_RATIO_LIMIT)
    return gap.expm1() - gap


def _token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """What the loss says of each token; terms alone become a `TokenLoss` that clips nothing."""
    loss, logprob = loss_of(settings), batch.logprob
    assert logprob is not None
    asked = not isinstance(settings.kind, PolicyLoss) or len(logprob) > 0  # a user's loss need not think of no tokens
    found = loss.token_loss(batch, settings) if asked else logprob
    terms = found.loss if isinstance(found, TokenLoss) else found
    if not isinstance(terms, Tensor) or terms.shape != logprob.shape:
        got = tuple(terms.shape) if isinstance(terms, Tensor) else type(terms).__name__
        raise ValueError(f"the loss {loss.name!r} gave {got}; it must give one term per token, {tuple(logprob.shape)}")
    if torch.is_grad_enabled() and logprob.requires_grad and not terms.requires_grad:
        raise ValueError(f"the loss {loss.name!r} has no gradient: it must depend on batch.logprob, and not only on its detached values")
    if isinstance(found, TokenLoss):
        return found
    never = torch.zeros_like(terms, dtype=torch.bool)
    return TokenLoss(loss=terms, ratio=batch.ratio().detach(), clip_low=never, clip_high=never, clip_dual=never)


def _shared(batch: TokenBatch, settings: PolicyLossSettings, loss: Tensor) -> Tensor:
    """Token losses times the batch's weights; without weights over the length of their sequence where the loss is a mean of means."""
    if batch.weight is not None:
        return loss * batch.weight
    if loss_of(settings).aggregate != "sequence":
        return loss
    lengths, owner = batch.sequences()
    return loss / lengths[owner]


def _totals(batch: TokenBatch, token_loss: TokenLoss, correction: Correction) -> dict[str, Tensor]:
    """KL(engine || trainer) estimated on the engine's own samples (Schulman, "Approximating KL divergence").

    With the gap d = proximal_logprob - behaviour_logprob: k1 = -d (unbiased, may be negative), k3 = exp(d) - 1 - d.
    """
    gap = (batch.proximal().double() - batch.behaviour_logprob.double()).masked_fill(correction.nonfinite, 0.0)
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
    if batch.reference_logprob is not None and batch.logprob is not None:
        sums |= {"kl_reference_k1": batch.logprob - batch.reference_logprob, "kl_reference_k3": reference_k3(batch)}
    totals = {name: values.double().sum() for name, values in sums.items()}
    nothing = gap.new_full((1,), -torch.inf)
    maxima = {"ratio_max": token_loss.ratio.double(), "gap_max": gap.abs()}
    return totals | {name: torch.cat([nothing, values]).max() for name, values in maxima.items()}
