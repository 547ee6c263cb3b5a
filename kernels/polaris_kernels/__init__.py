"""Fused operations for reinforcement learning of language models: Triton kernels on CUDA, chunked torch everywhere else."""

from polaris_kernels.linear_logprob import linear_logprob
from polaris_kernels.linear_policy_loss import linear_policy_loss
from polaris_kernels.logprob_from_logits import logprob_from_logits
from polaris_kernels.policy_loss import policy_loss

__all__ = ["linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss"]
