"""`logprob_from_logits` in plain torch, one chunk of rows at a time: nothing of the size of the logits is made but the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from polaris_kernels.rows import Rows
from polaris_kernels.sampling_mask import cut_off
from polaris_kernels.softmax import chosen_logprob, logit_gradient, rows_per_chunk


def chunked_forward(
    logits: Tensor, targets: Tensor, temperature: Tensor, ignore_index: int, sampling_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies [T] in nats, and [2, T] the maxima and logs of the softmax's sums, as `temperature` [T]."""
    total = len(logits)
    logprob, entropy = temperature.new_empty(2, total)
    softmax = temperature.new_empty(2, total)
    ignored = targets == ignore_index
    chosen = targets.masked_fill(ignored, 0)
    for rows in _chunks(logits):
        chunk = logits[rows].to(temperature.dtype, copy=True)
        if sampling_mask is not None:
            cut_off(chunk, sampling_mask[rows], 0)
        logprob[rows], entropy[rows], softmax[:, rows] = chosen_logprob(chunk, chosen[rows], temperature[rows], with_entropy=True)
    return logprob.masked_fill(ignored, 0.0), entropy.masked_fill(ignored, 0.0), softmax


def chunked_backward(logits: Tensor, gradient: Tensor, values: Rows, ignore_index: int) -> None:
    """Write the gradient of the logits into `gradient` [T, V]; it may be `logits` itself."""
    incoming = [g for g in (values.logprob_gradient, values.entropy_gradient) if g is not None]
    dead = torch.stack(incoming).eq(0).all(0) | (values.targets == ignore_index)
    values = replace(values, targets=values.targets.masked_fill(dead, 0))
    for rows in _chunks(logits):
        chunk, mask = logits[rows].to(values.temperature.dtype, copy=True), values.sampling_mask
        if mask is not None:
            cut_off(chunk, mask[rows], 0)
        chunk = logit_gradient(chunk, values[rows])
        if mask is not None:  # a target that was cut off
            cut_off(chunk, mask[rows], 0, 0.0)
        # Whatever the logits of a row without gradient are, NaN too.
        gradient[rows] = chunk.masked_fill_(dead[rows].unsqueeze(1), 0.0).to(gradient.dtype)


def _chunks(logits: Tensor) -> Iterator[slice]:
    size = rows_per_chunk(logits.shape[1])
    return (slice(start, start + size) for start in range(0, len(logits), size))
