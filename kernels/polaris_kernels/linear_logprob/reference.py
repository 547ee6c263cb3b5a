"""The definition of `linear_logprob` in plain torch; every other implementation is tested against it."""

from __future__ import annotations

import torch
from torch import Tensor

from polaris_kernels.sampling_mask import kept


def linear_logprob_reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    logits_dtype: torch.dtype | None = None,
    sampling_mask: Tensor | None = None,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each row, both [T] in the dtype of `hidden`, from full logits [T, V].

    `hidden` [T, H], `weight` [V, H], `targets` [T] int64, `temperature` a number or [T], `bias` [V], `sampling_mask` as that of
    `linear_logprob`. Where the target is `ignore_index` both results are 0.
    """
    logits = torch.nn.functional.linear(hidden, weight, bias)
    if logits_dtype is not None:
        logits = logits.to(logits_dtype).to(hidden.dtype)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if sampling_mask is not None:
        logits = logits.masked_fill(~kept(sampling_mask, 0, logits.shape[1]), -torch.inf)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(hidden.dtype).unsqueeze(1)
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    ignored = targets == ignore_index
    chosen = logprobs.gather(1, targets.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
    # A token that is ruled out adds 0 log 0 = 0.
    entropy = -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)
    return chosen.masked_fill(ignored, 0.0), entropy.masked_fill(ignored, 0.0)
