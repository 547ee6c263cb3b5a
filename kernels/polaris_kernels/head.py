"""The output head as one value: what stands between hidden states and the logits that a softmax sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """logits = cap(round(hidden @ weight.T + bias)), with round to `logits_dtype` and cap(x) = softcap * tanh(x / softcap).

    `weight` [V, H], `bias` [V] or None; `softcap` 0 and `logits_dtype` None leave their step out. With a `group` both are this rank's rows
    of what is divided among its ranks. `main_grad` [V, H] or None is where the backward adds the gradient of `weight`, in the dtype of its
    sum: float32, or float64 for float64.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float = 0.0
    logits_dtype: torch.dtype | None = None
    group: dist.ProcessGroup | None = None
    main_grad: Tensor | None = None

    def place_of_gradient(self, wanted: bool) -> tuple[Tensor | None, Tensor | None]:
        """Where the gradient of the weight goes if it is `wanted`: it is added to `main_grad`, or else written to a new tensor."""
        if not wanted:
            return None, None
        return self.main_grad, torch.empty_like(self.weight) if self.main_grad is None else None
