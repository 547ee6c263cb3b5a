"""GSPO (Zheng et al. 2025): one ratio per sequence, the geometric mean of its token ratios, clipped as a whole.

It differs from 1 far less than a token's ratio does: the paper clips at 3e-4 and 4e-4. No dual clip. The importance
correction stays token by token, as in verl: it weighs each token's own gradient.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from polaris_kernels.policy_loss.base import LOG_RATIO_LIMIT, PolicyLoss, TokenLoss, clipped_surrogate, sequence_mean_share
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.token_batch import TokenBatch


def token_loss(logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """Each token's share of its sequence's mean, in the paper's GSPO-token form: value of the sequence, gradient of the token."""
    log_ratio = (logprob - batch.proximal(logprob)).detach()
    lengths, owner = batch.sequences()
    mean = log_ratio.new_zeros(len(lengths)).index_add(0, owner, sequence_mean_share(batch, log_ratio))
    sequence_ratio = mean.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()[owner]
    ratio = sequence_ratio * (logprob - logprob.detach()).exp()
    surrogate = clipped_surrogate(ratio, batch.advantage, settings)
    return replace(surrogate, loss=sequence_mean_share(batch, surrogate.loss))


GSPO = PolicyLoss(name="gspo", normaliser="sequences", token_loss=token_loss, of_sequences=True)
