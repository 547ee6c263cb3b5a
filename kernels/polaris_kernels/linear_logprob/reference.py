"""The definition of `linear_logprob` in plain torch; every other implementation is tested against it."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_logprob_reference(hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each row, both [T] in the dtype of `hidden`, from full logits [T, V].

    `hidden` [T, H], `weight` [V, H], `targets` [T] int64, `temperature` a number or [T].
    """
    if isinstance(temperature, Tensor):
        temperature = temperature.to(hidden.dtype).unsqueeze(1)
    logprobs = torch.log_softmax(hidden @ weight.T / temperature, dim=-1)
    return logprobs.gather(1, targets.unsqueeze(1)).squeeze(1), -(logprobs.exp() * logprobs).sum(-1)
