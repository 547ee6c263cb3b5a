"""The definition of `linear_policy_loss`: the definitions of `linear_logprob` and `policy_loss`, one after the other."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from polaris_kernels.linear_logprob.reference import linear_logprob_reference
from polaris_kernels.policy_loss.function import policy_loss
from polaris_kernels.rows import result_dtype


def linear_policy_loss_reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor | None,
    denominator: float | Tensor,
    *,
    head: dict[str, Any],
    loss: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and totals from full logits [T, V]; the log-probs are made float32 (or float64) before the loss.

    `head` and `loss` are the options of the two definitions.
    """
    logprob, _ = linear_logprob_reference(hidden, weight, targets, **head)
    return policy_loss(logprob.to(result_dtype(hidden)), behaviour_logprob, advantage, mask, denominator, **loss)
