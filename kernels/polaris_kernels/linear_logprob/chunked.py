"""`linear_logprob` in plain torch, one chunk of rows at a time: no tensor ever has T * V elements.

Legend: T rows (tokens), H hidden size, V vocabulary, C rows of a chunk, N rows whose gradient is not zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from polaris_kernels.linear_logprob.head import Head, Rows
from polaris_kernels.products import accumulate, product, product_operand

_CHUNK_BYTES = 2**27
_MOST_ROWS = 2048


def rows_per_chunk(vocabulary: int) -> int:
    """Rows C whose float32 logits take about 128 MiB: at least 16, at most 2048, a function of V alone."""
    return max(16, min(_MOST_ROWS, _CHUNK_BYTES // (4 * vocabulary) // 16 * 16))


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
    chosen = targets.masked_fill(ignored, 0).unsqueeze(1)
    for start in range(0, total, size):
        rows = slice(start, min(start + size, total))
        length = rows.stop - start
        logits = chunk_logits(pad(hidden[rows], (0, 0, 0, size - length)), weight, head)
        logits.div_(pad(temperature[rows], (0, size - length), value=1.0).unsqueeze(1))
        maximum = logits.amax(1, keepdim=True)
        # Rows of only minus infinity would give inf - inf.
        maximum.masked_fill_(maximum == -torch.inf, 0.0)
        exponentials = logits.sub_(maximum).exp()
        log_total = exponentials.sum(1, keepdim=True).log_()
        softmax[:, rows] = torch.cat([maximum, log_total], dim=1)[:length].T
        logprob[rows] = (logits[:length].gather(1, chosen[rows]) - log_total[:length]).squeeze(1)
        if with_entropy:
            # An exponential is 0 long before its logarithm reaches -1000, where it would otherwise meet minus infinity.
            moment = exponentials.mul_(logits.clamp_(min=-1000)).sum(1, keepdim=True)
            entropy[rows] = (log_total - moment / log_total.exp())[:length].squeeze(1)
    return logprob.masked_fill_(ignored, 0.0), entropy.masked_fill_(ignored[: len(entropy)], 0.0), softmax


def chunked_backward(hidden: Tensor, head: Head, values: Rows, with_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V] (or None) in their dtypes; `values` are those of the N rows."""
    weight = product_operand(head.weight)
    hidden_gradient = torch.empty_like(hidden)
    weight_gradient = torch.zeros_like(head.weight, dtype=values.temperature.dtype) if with_weight else None
    bias_gradient = torch.zeros_like(head.bias, dtype=values.temperature.dtype) if head.bias is not None else None
    size = rows_per_chunk(len(weight))
    for rows in (slice(start, start + size) for start in range(0, len(hidden), size)):
        row = values[rows]
        logits = chunk_logits(hidden[rows], weight, head)
        slope = 1 - (logits / head.softcap).square_() if head.softcap else None
        logprobs = logits.div_(_column(row.temperature)).sub_(_column(row.maximum)).sub_(_column(row.log_total))
        gradient = torch.zeros_like(logprobs)
        if row.entropy_gradient is not None:
            gradient = (logprobs.clamp(min=-1000) + _column(row.entropy)).mul_(_column(-row.entropy_gradient))
        gradient.sub_(_column(row.logprob_gradient)).mul_(logprobs.exp_())
        gradient.scatter_add_(1, _column(row.targets), _column(row.logprob_gradient)).div_(_column(row.temperature))
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


def _column(values: Tensor) -> Tensor:
    return values.unsqueeze(1)
