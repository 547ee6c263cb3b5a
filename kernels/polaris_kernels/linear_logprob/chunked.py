"""`linear_logprob` in plain torch, one chunk of rows at a time: no tensor ever has T * V elements.

Legend: T rows (tokens), H hidden size, V vocabulary, C rows of a chunk, N rows whose gradient is not zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from polaris_kernels.head import Head
from polaris_kernels.products import accumulate, product, product_operand
from polaris_kernels.rows import Rows
from polaris_kernels.softmax import chosen_logprob, logit_gradient, rows_per_chunk


def chunked_forward(
    hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, ignore_index: int, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs [T], entropies [T] (or [0]), and [2, T] the maxima and the logs of the softmax's sums, as `temperature` [T].

    The last chunk is padded to C rows, so every product has the same shape and a row's result does not depend on T.
    """
    total, size = len(hidden), rows_per_chunk(len(head.weight))
    logprob, softmax = temperature.new_empty(total), temperature.new_empty(2, total)
    entropy = temperature.new_empty(total if with_entropy else 0)
    weight = product_operand(head.weight)
    ignored = targets == ignore_index
    chosen = targets.masked_fill(ignored, 0)
    for start in range(0, total, size):
        rows = slice(start, min(start + size, total))
        length = rows.stop - start
        logits = chunk_logits(pad(hidden[rows], (0, 0, 0, size - length)), weight, head)
        divisor = pad(temperature[rows], (0, size - length), value=1.0)
        chunk = chosen_logprob(logits, pad(chosen[rows], (0, size - length)), divisor, with_entropy)
        logprob[rows], softmax[:, rows] = chunk[0][:length], chunk[2][:, :length]
        if chunk[1] is not None:
            entropy[rows] = chunk[1][:length]
    return logprob.masked_fill_(ignored, 0.0), entropy.masked_fill_(ignored[: len(entropy)], 0.0), softmax


def chunked_backward(hidden: Tensor, head: Head, values: Rows, with_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V] (or None) in their dtypes; `values` are those of the N rows."""
    weight = product_operand(head.weight)
    hidden_gradient = torch.empty_like(hidden)
    weight_gradient = torch.zeros_like(head.weight, dtype=values.temperature.dtype) if with_weight else None
    bias_gradient = torch.zeros_like(head.bias, dtype=values.temperature.dtype) if head.bias is not None else None
    size = rows_per_chunk(len(weight))
    for rows in (slice(start, start + size) for start in range(0, len(hidden), size)):
        logits = chunk_logits(hidden[rows], weight, head)
        slope = 1 - (logits / head.softcap).square_() if head.softcap else None
        gradient = logit_gradient(logits, values[rows])
        if slope is not None:
            gradient.mul_(slope)
        if bias_gradient is not None:
            bias_gradient += gradient.sum(0)
        gradient = gradient.to(weight.dtype)
        hidden_gradient[rows] = product(gradient, weight).to(hidden.dtype)
        if weight_gradient is not None:
            accumulate(weight_gradient, gradient.T, hidden[rows].to(weight.dtype))
    weight_gradient = None if weight_gradient is None else weight_gradient.to(hidden.dtype)
    return hidden_gradient, weight_gradient, None if bias_gradient is None else bias_gradient.to(hidden.dtype)


def chunk_logits(hidden: Tensor, weight: Tensor, head: Head) -> Tensor:
    """[C, V] logits of `head` before the temperature, in float32 or float64; `weight` is `product_operand(head.weight)`."""
    logits = product(hidden.to(weight.dtype), weight.T)
    if head.bias is not None:
        logits += head.bias
    if head.logits_dtype is not None:
        logits = logits.to(head.logits_dtype).to(logits.dtype)
    return logits.div_(head.softcap).tanh_().mul_(head.softcap) if head.softcap else logits
