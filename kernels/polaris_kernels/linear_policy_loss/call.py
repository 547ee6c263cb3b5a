"""What a call of `linear_policy_loss` knows of its tokens, for whatever works out their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polaris_kernels.policy_loss.function import policy_loss_of_batch
from polaris_kernels.policy_loss.settings import PolicyLossSettings
from polaris_kernels.token_batch import TokenBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Values [T] of the call; `trained` is the mask, `learning` the tokens of it that have an advantage.

    `batch` is what the loss of single tokens takes, of any rows: it has neither mask nor sequences.
    """

    targets: Tensor
    temperature: Tensor
    trained: Tensor
    learning: Tensor
    batch: TokenBatch
    settings: PolicyLossSettings
    denominator: float | Tensor

    def sampling_mask(self, rows: Tensor) -> Tensor | None:
        """The words of the tokens with those indices, or None."""
        mask = self.batch.sampling_mask
        return None if mask is None else mask[rows]

    def loss(self, logprob: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and totals of the tokens with those indices and log-probs."""
        return policy_loss_of_batch(logprob, self.batch[rows], self.settings, self.denominator)

    def slope(self, logprob: Tensor, rows: Tensor) -> Tensor:
        """The gradient of the loss by those log-probs, of the tokens with those indices."""
        with torch.enable_grad():
            leaf = logprob.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(leaf, rows)[0], leaf)
        return gradient
