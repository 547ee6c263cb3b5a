"""What a policy loss is and what it returns.

Legend: R response tokens of a pack, S sequences of the pack. A pack holds whole sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.token_batch import TokenBatch

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to this before exp, as in verl: nothing overflows, and beyond it the gradient is zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """`loss` [R] to be minimised, the importance `ratio` [R] in it, and [R] bool where each bound on that ratio acted."""

    loss: Tensor
    ratio: Tensor
    clip_low: Tensor
    clip_high: Tensor
    clip_dual: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A loss by name. The sum of its token losses is divided by what `normaliser` counts in the whole optimizer step.

    "tokens": response tokens. "sequences": sequences; the token losses are already divided by their sequence's length.
    "constant": sequences times the longest response allowed. A loss `of_sequences` needs all log-probs of a sequence before the
    gradient of any of them is known.
    """

    name: str
    normaliser: Literal["tokens", "sequences", "constant"]
    token_loss: Callable[[Tensor, TokenBatch, PolicyLossSettings], TokenLoss]
    """(log-probs [R] of the policy that is trained, the tokens, settings) -> each token's loss."""
    of_sequences: bool = False


def token_ratio(logprob: Tensor, batch: TokenBatch) -> Tensor:
    """Importance ratio [R] of the trained to the proximal policy, token by token."""
    return (logprob - batch.proximal(logprob)).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def sequence_mean_share(batch: TokenBatch, loss: Tensor) -> Tensor:
    """Token losses [R] over their sequence's length, so that they sum to the sum of the sequence means."""
    lengths, owner = batch.sequences()
    return loss / lengths[owner]


def clipped_surrogate(ratio: Tensor, advantage: Tensor, settings: PolicyLossSettings) -> TokenLoss:
    """PPO's -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) (Schulman et al. 2017) with separate bounds, token by token."""
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    clip_low, clip_high = (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)
    loss = -(ratio * advantage).minimum(ratio.clamp(low, high) * advantage)
    return TokenLoss(loss=loss, ratio=ratio, clip_low=clip_low, clip_high=clip_high, clip_dual=torch.zeros_like(clip_low))
