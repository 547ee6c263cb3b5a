"""One chunk of `linear_policy_loss` in plain torch. Legend: C rows of the chunk, H hidden size, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.chunked import chunk_logits
from polaris_kernels.softmax import chosen_logprob


def chunked_chunk(
    head: Head, weight: Tensor, hidden: Tensor, targets: Tensor, temperature: Tensor, coefficient: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [C], and the gradient of the logits [C, V]; `weight` is `product_operand(head.weight)`.

    `coefficient` tells the gradient of the log-probs from the log-probs.
    """
    logits = chunk_logits(hidden.to(weight.dtype), weight, head)
    slope = 1 - (logits / head.softcap).square_() if head.softcap else None
    logprob, entropy, (_, log_total) = chosen_logprob(logits, targets, temperature, with_entropy=True)
    assert entropy is not None
    up = (coefficient(logprob) / temperature).unsqueeze(1)
    gradient = logits.sub_(log_total.unsqueeze(1)).exp_().mul_(-up).scatter_add_(1, targets.unsqueeze(1), up)
    return logprob, entropy, gradient if slope is None else gradient.mul_(slope)
