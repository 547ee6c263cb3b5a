"""Fused operations for reinforcement learning of language models; needs torch only."""

from polaris_kernels.linear_logprob import linear_logprob

__all__ = ["linear_logprob"]
