"""GRPO (DeepSeekMath, Shao et al. 2024): the clipped surrogate, averaged over each sequence and then over sequences.

The paper's single bound is `clip_low = clip_high`; its KL term is `PolicyLossSettings.kl`. No dual clip.
"""

from __future__ import annotations

from polaris_kernels.policy_loss.base import clipped_surrogate
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import TokenBatch


def token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """The clipped surrogate of each token."""
    return clipped_surrogate(batch.ratio(), batch.advantage, settings)


GRPO = PolicyLoss(name="grpo", aggregate="sequence", token_loss=token_loss)
