"""The definition of `logprob_from_logits` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def logprob_from_logits_reference(
    logits: Tensor, targets: Tensor, temperature: float | Tensor = 1.0, *, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each row, both [T] in the dtype of `logits` [T, V].

    Where the target is `ignore_index` both are 0.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature.to(logits.dtype).unsqueeze(1)
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    ignored = targets == ignore_index
    chosen = logprobs.gather(1, targets.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
    return chosen.masked_fill(ignored, 0.0), -(logprobs.exp() * logprobs).sum(-1).masked_fill(ignored, 0.0)
