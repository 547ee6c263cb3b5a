"""GRPO (DeepSeekMath, Shao et al. 2024): the clipped surrogate, averaged over each sequence and then over sequences.

The paper's single bound is `clip_low = clip_high`; its KL term against a reference model is left out. No dual clip.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from polaris_kernels.policy_loss.base import PolicyLoss, TokenLoss, clipped_surrogate, sequence_mean_share, token_ratio
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.token_batch import TokenBatch


def token_loss(logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """Each token's share of its sequence's mean clipped surrogate."""
    surrogate = clipped_surrogate(token_ratio(logprob, batch), batch.advantage, settings)
    return replace(surrogate, loss=sequence_mean_share(batch, surrogate.loss))


GRPO = PolicyLoss(name="grpo", normaliser="sequences", token_loss=token_loss)
