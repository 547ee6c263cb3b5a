"""Draws tokens from logits, vectorised over rows; the randomness is one uniform number per token, given by the caller."""

from __future__ import annotations

import numpy as np
import torch

from polaris.rollout.types import Sampling


def uniforms(seed: int, count: int) -> np.ndarray:
    """The first `count` uniform numbers [count] float64 in [0, 1) of one sample; a longer draw begins with the same ones."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def truncate(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Logits [n, V] with -inf outside the `top_k` largest, then outside the nucleus of probability `top_p` (Holtzman et al. 2020)."""
    if top_k < 1 and top_p >= 1:
        return logits
    values, order = logits.sort(dim=-1, descending=True)
    if top_k > 0:
        values = values.masked_fill(torch.arange(values.shape[-1], device=values.device) >= top_k, -torch.inf)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    values = values.masked_fill((before >= top_p) & (before > 0), -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, values)


def draw(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n] int64 and their log-probs [n] float32 under softmax(logits [n, V] / temperature), truncated as `sampling` says.

    Inverse transform: the first token whose cumulative probability exceeds `uniform` [n] float64.
    """
    logprobs = truncate(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p).log_softmax(-1)
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    tokens = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens[:, 0], logprobs.gather(-1, tokens)[:, 0]
