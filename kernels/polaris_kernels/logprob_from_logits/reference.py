"""The definition of `logprob_from_logits` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from polaris_kernels.sampling_mask import kept


def logprob_from_logits_reference(
    logits: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    sampling_mask: Tensor | None = None,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each row, both [T] in the dtype of `logits` [T, V].

    `sampling_mask` as that of `logprob_from_logits`. Where the target is `ignore_index` both are 0.
    """
    if sampling_mask is not None:
        logits = logits.masked_fill(~kept(sampling_mask, 0, logits.shape[1]), -torch.inf)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(logits.dtype).unsqueeze(1)
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    ignored = targets == ignore_index
    chosen = logprobs.gather(1, targets.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
    # A token that is ruled out adds 0 log 0 = 0.
    entropy = -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)
    return chosen.masked_fill(ignored, 0.0), entropy.masked_fill(ignored, 0.0)
