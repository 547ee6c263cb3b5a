"""CISPO (MiniMax-M1, 2025): REINFORCE with a clipped, constant importance weight; no token loses its gradient.

The weight is clipped at both bounds whatever the advantage's sign; the paper leaves the lower end open, which is `clip_low = 1`.
"""

from __future__ import annotations

import torch

from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import TokenBatch


def token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """-clip(r) A log p of each token, with no gradient through the ratio."""
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    assert batch.logprob is not None
    ratio = batch.ratio().detach()
    loss = -ratio.clamp(low, high) * batch.advantage * batch.logprob
    clip_low = ratio < low
    return TokenLoss(loss=loss, ratio=ratio, clip_low=clip_low, clip_high=ratio > high, clip_dual=torch.zeros_like(clip_low))


CISPO = PolicyLoss(name="cispo", aggregate="token", token_loss=token_loss)
