"""GSPO (Zheng et al. 2025): one ratio per sequence, the geometric mean of its token ratios, clipped as a whole.

It differs from 1 far less than a token's ratio does: the paper clips at 3e-4 and 4e-4. No dual clip. The importance
correction stays token by token, as in verl: it weighs each token's own gradient.
"""

from __future__ import annotations

from polaris_kernels.policy_loss.base import clipped_surrogate, sequence_mean
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.token_batch import LOG_RATIO_LIMIT, TokenBatch


def token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss:
    """The paper's GSPO-token form: value of the sequence, gradient of the token."""
    logprob = batch.logprob
    assert logprob is not None
    mean = sequence_mean(batch, (logprob - batch.proximal()).detach())
    sequence_ratio = mean.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()[batch.sequences()[1]]
    ratio = sequence_ratio * (logprob - logprob.detach()).exp()
    return clipped_surrogate(ratio, batch.advantage, settings)


GSPO = PolicyLoss(name="gspo", aggregate="sequence", token_loss=token_loss, of_sequences=True)
