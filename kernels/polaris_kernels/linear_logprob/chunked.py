"""`linear_logprob` in plain torch, one chunk of rows at a time: no tensor ever has T * V elements.

Legend: T rows (tokens), H hidden size, V vocabulary, C rows of a chunk, N rows whose gradient is not zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

_CHUNK_BYTES = 2**27
_MOST_ROWS = 2048
_HALF = (torch.bfloat16, torch.float16)


def rows_per_chunk(vocabulary: int) -> int:
    """Rows C whose float32 logits take about 128 MiB: at least 16, at most 2048, a function of V alone."""
    return max(16, min(_MOST_ROWS, _CHUNK_BYTES // (4 * vocabulary) // 16 * 16))


def chunked_forward(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: Tensor, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities [T] and entropies [T] in float32 (float64 for float64 inputs); `temperature` is [T].

    The last chunk is padded to C rows, so every product has the same shape and a row's result does not depend on T.
    """
    total, size = len(hidden), rows_per_chunk(len(weight))
    logprob = temperature.new_empty(total)
    entropy = torch.empty_like(logprob) if with_entropy else None
    weight = _product_operand(weight)
    for start in range(0, total, size):
        rows = slice(start, min(start + size, total))
        missing = size - (rows.stop - start)
        logprobs = _log_softmax(pad(hidden[rows], (0, 0, 0, missing)), weight, pad(temperature[rows], (0, missing), value=1.0))
        logprob[rows] = logprobs[: rows.stop - start].gather(1, targets[rows].unsqueeze(1)).squeeze(1)
        if entropy is not None:
            entropy[rows] = -logprobs.exp().mul_(logprobs).sum(-1)[: rows.stop - start]
    return logprob, entropy


def chunked_backward(
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None],
    logprob_gradient: Tensor | None,
    entropy_gradient: Tensor | None,
    *,
    with_weight: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `hidden` [T, H] and `weight` [V, H] (or None) in their dtypes, from gradients [T] of the two outputs.

    `saved` is (hidden, weight, targets, temperature, entropy). Only the N rows with a gradient are computed.
    """
    hidden, weight, targets, temperature, entropy = saved
    operand = _product_operand(weight)
    hidden_gradient = torch.zeros_like(hidden)
    weight_gradient = torch.zeros(weight.shape, dtype=temperature.dtype, device=weight.device) if with_weight else None
    for rows in _rows_with_gradient(logprob_gradient, entropy_gradient).split(rows_per_chunk(len(weight))):
        chunk, chunk_temperature = hidden[rows], temperature[rows]
        logprobs = _log_softmax(chunk, operand, chunk_temperature)
        gradient = torch.zeros_like(logprobs)
        if entropy_gradient is not None and entropy is not None:
            gradient = (logprobs + entropy[rows].unsqueeze(1)).mul_(-entropy_gradient[rows].unsqueeze(1))
        if logprob_gradient is not None:
            gradient.sub_(logprob_gradient[rows].unsqueeze(1))
        gradient.mul_(logprobs.exp_())
        if logprob_gradient is not None:
            gradient.scatter_add_(1, targets[rows].unsqueeze(1), logprob_gradient[rows].unsqueeze(1))
        gradient = gradient.div_(chunk_temperature.unsqueeze(1)).to(operand.dtype)
        hidden_gradient[rows] = _product(gradient, operand).to(hidden.dtype)
        if weight_gradient is not None:
            weight_gradient += _product(gradient.T, chunk.to(operand.dtype))
    return hidden_gradient, None if weight_gradient is None else weight_gradient.to(weight.dtype)


def _rows_with_gradient(logprob_gradient: Tensor | None, entropy_gradient: Tensor | None) -> Tensor:
    gradients = [gradient != 0 for gradient in (logprob_gradient, entropy_gradient) if gradient is not None]
    return torch.stack(gradients).any(0).nonzero().squeeze(1)


def _log_softmax(hidden: Tensor, weight: Tensor, temperature: Tensor) -> Tensor:
    logits = _product(hidden.to(weight.dtype), weight.T)
    return torch.log_softmax(logits.div_(temperature.unsqueeze(1)), dim=-1)


def _product_operand(weight: Tensor) -> Tensor:
    # Only CUDA returns float32 from a product of half-precision matrices; elsewhere logits would be rounded to half precision.
    return weight.float() if weight.dtype in _HALF and not weight.is_cuda else weight


def _product(left: Tensor, right: Tensor) -> Tensor:
    return torch.mm(left, right, out_dtype=torch.float32) if left.dtype in _HALF else torch.mm(left, right)
