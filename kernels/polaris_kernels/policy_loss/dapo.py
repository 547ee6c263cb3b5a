"""DAPO (Yu et al. 2025): decoupled clip bounds and the mean over all tokens, with the dual clip of Ye et al. 2020."""

from __future__ import annotations

from dataclasses import replace

from polaris_kernels.policy_loss.base import clipped_surrogate
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import TokenBatch


def token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """The clipped surrogate; where the advantage is negative it does not exceed -dual_clip * A, however large the ratio."""
    surrogate = clipped_surrogate(batch.ratio(), batch.advantage, settings)
    if not settings.dual_clip:
        return surrogate
    bound = -settings.dual_clip * batch.advantage
    clip_dual = (batch.advantage < 0) & (surrogate.loss > bound)
    return replace(surrogate, loss=surrogate.loss.where(~clip_dual, bound), clip_dual=clip_dual)


DAPO = PolicyLoss(name="dapo", aggregate="token", token_loss=token_loss)
