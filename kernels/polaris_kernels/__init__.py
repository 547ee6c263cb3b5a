"""Fused operations for reinforcement learning of language models: Triton kernels on CUDA, chunked torch everywhere else; they need torch
alone, and any trainer may call them."""

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import linear_logprob
from polaris_kernels.linear_policy_loss import linear_policy_loss, linear_policy_loss_of_batch
from polaris_kernels.logprob_from_logits import logprob_from_logits
from polaris_kernels.policy_loss import policy_loss, policy_loss_of_batch
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings, TokenLoss
from polaris_kernels.sampling_mask import pack_sampling_mask
from polaris_kernels.token_batch import TokenBatch

__version__ = "0.1.0"
"""Semantic; the only place where it is written."""

__all__ = [
    "Head",
    "PolicyLoss",
    "PolicyLossSettings",
    "TokenBatch",
    "TokenLoss",
    "linear_logprob",
    "linear_policy_loss",
    "linear_policy_loss_of_batch",
    "logprob_from_logits",
    "pack_sampling_mask",
    "policy_loss",
    "policy_loss_of_batch",
]
