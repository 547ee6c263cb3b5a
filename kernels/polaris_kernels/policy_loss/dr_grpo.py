"""Dr. GRPO (Liu et al. 2025): GRPO's clipped surrogate over a constant, so that long wrong answers are not favoured.

The paper also leaves the group's standard deviation out of the advantage: set `advantage_scale = "none"`. No dual clip.
"""

from __future__ import annotations

from polaris_kernels.policy_loss.base import clipped_surrogate
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import TokenBatch


def token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """The clipped surrogate of each token."""
    return clipped_surrogate(batch.ratio(), batch.advantage, settings)


DR_GRPO = PolicyLoss(name="dr_grpo", aggregate="constant", token_loss=token_loss)
