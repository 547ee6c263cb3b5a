"""One chunk of `linear_policy_loss` in plain torch. Legend: C rows of the chunk, H hidden size, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import pad

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.chunked import chunk_logits
from polaris_kernels.softmax import chosen_logprob, rows_per_chunk


def chunked_chunk(
    head: Head, weight: Tensor, hidden: Tensor, targets: Tensor, temperature: Tensor, coefficient: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [C], and the gradient of the logits [C, V]; `weight` is `product_operand(head.weight)`.

    `coefficient` tells the gradient of the log-probs from the log-probs.
    """
    rows = len(hidden)
    # Padded, so that every product has one shape and a row's result does not depend on the others.
    padding = (0, 0, 0, rows_per_chunk(len(weight)) - rows)
    logits = chunk_logits(pad(hidden.to(weight.dtype), padding), weight, head)[:rows]
    slope = 1 - (logits / head.softcap).square_() if head.softcap else None
    logprob, entropy, (_, log_total) = chosen_logprob(logits, targets, temperature, with_entropy=True)
    assert entropy is not None
    up = (coefficient(logprob) / temperature).unsqueeze(1)
    gradient = logits.sub_(log_total.unsqueeze(1)).exp_().mul_(-up).scatter_add_(1, targets.unsqueeze(1), up)
    return logprob, entropy, gradient if slope is None else gradient.mul_(slope)
