"""The values of every row of a softmax, on their way into its backward."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the backward knows of each row, [T] each: the call's, the forward's and the incoming gradients; `sampling_mask` [T, V / 32].

    `maximum` is that of the logits, `log_total` the logarithm of the softmax's sum; the Triton kernels hold both in base 2, after the
    temperature.
    """

    targets: Tensor
    temperature: Tensor
    maximum: Tensor
    log_total: Tensor
    logprob: Tensor
    entropy: Tensor
    logprob_gradient: Tensor
    entropy_gradient: Tensor | None
    sampling_mask: Tensor | None = None

    def __getitem__(self, rows: Tensor | slice) -> Rows:
        return replace(self, **{f.name: v[rows] for f in fields(self) if (v := getattr(self, f.name)) is not None})

    def only(self, live: Tensor) -> Rows:
        """The same rows, of which those that are not `live` [T] have no target, no gradient and nothing that is not finite."""
        # Far above every logit, so that no exponential overflows.
        neutral = {"targets": -1, "temperature": 1.0, "maximum": 1e30}
        values = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None and v.ndim == 1}
        return replace(self, **{name: v.where(live, neutral.get(name, 0.0)) for name, v in values.items()})


def result_dtype(hidden: Tensor) -> torch.dtype:
    """float32, or float64 for float64 inputs."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def live_rows(gradients: tuple[Tensor | None, ...], targets: Tensor, ignore_index: int) -> Tensor:
    """[T] bool, the rows that the backward has to compute; a NaN is not zero, so a broken gradient stays visible."""
    used = [gradient != 0 for gradient in gradients if gradient is not None]
    return torch.stack(used).any(0) & (targets != ignore_index)
