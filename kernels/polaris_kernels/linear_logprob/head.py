"""What the implementations of `linear_logprob` share: the output head, and the values of every row."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """logits = cap(round(hidden @ weight.T + bias)), with round to `logits_dtype` and cap(x) = softcap * tanh(x / softcap).

    `weight` [V, H], `bias` [V] or None; `softcap` 0 and `logits_dtype` None leave their step out.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float = 0.0
    logits_dtype: torch.dtype | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the backward knows of each row, [T] each: the call's, the forward's and the incoming gradients.

    `maximum` and `log_total` are the softmax's, in the units of the implementation that made them.
    """

    targets: Tensor
    temperature: Tensor
    maximum: Tensor
    log_total: Tensor
    entropy: Tensor
    logprob_gradient: Tensor
    entropy_gradient: Tensor | None

    def __getitem__(self, rows: Tensor | slice) -> Rows:
        return replace(self, **{f.name: v[rows] for f in fields(self) if (v := getattr(self, f.name)) is not None})


def result_dtype(hidden: Tensor) -> torch.dtype:
    """float32, or float64 for float64 inputs."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32
