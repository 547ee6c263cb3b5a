"""What the losses of this folder have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from polaris_kernels.policy_loss.settings import PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import TokenBatch


def sequence_mean(batch: TokenBatch, values: Tensor) -> Tensor:
    """Mean [S] of values [R] over each sequence."""
    lengths, owner = batch.sequences()
    return values.new_zeros(len(lengths)).index_add(0, owner, values / lengths[owner])


def clipped_surrogate(ratio: Tensor, advantage: Tensor, settings: PolicyLossSettings) -> TokenLoss:
    """PPO's -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) (Schulman et al. 2017) with separate bounds, token by token."""
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    clip_low, clip_high = (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)
    loss = -(ratio * advantage).minimum(ratio.clamp(low, high) * advantage)
    return TokenLoss(loss=loss, ratio=ratio, clip_low=clip_low, clip_high=clip_high, clip_dual=torch.zeros_like(clip_low))
