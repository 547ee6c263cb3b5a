"""The gradients of `linear_policy_loss` in plain torch. Legend: T rows, H hidden size, V vocabulary, N rows that learn, C of a block.

The forward leaves the gradients of the logits, [N, V], which at few rows are far less than that of the head, [V, H]; the backward takes
them through two products. At more rows than fit the logits are worked out twice, as in the two operations.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.chunked import (
    Gradients,
    chunked_backward,
    chunked_forward,
    fill_gradients,
    gradients_of_kept,
    may_keep,
    row_blocks,
)
from polaris_kernels.linear_policy_loss.call import Call
from polaris_kernels.products import rounded_dtype
from polaris_kernels.rows import Rows


def learn(hidden: Tensor, head: Head, call: Call, logprob: Tensor, entropy: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    """Fill in log-probs and entropies of the tokens that learn; return what `gradients` takes."""
    rows = call.learning.nonzero().squeeze(1)
    part = hidden[rows]
    if not may_keep(part, head):
        scored = _scored(part, head, call, rows, logprob, entropy)
        return hidden, head.weight, head.bias, rows, None, *scored, *_of_rows(call, rows)
    kept = hidden.new_empty(len(rows), len(head.weight), dtype=rounded_dtype(hidden))
    logits: Tensor | None = None
    for block in row_blocks(len(rows)):
        size = len(rows[block])
        logits = logprob.new_empty(size, len(head.weight)) if logits is None else logits[:size]  # the first block is the largest
        softmax, slope = _scored(part[block], head, call, rows[block], logprob, entropy, logits)
        fill_gradients(kept[block], logits, _values(softmax, slope, *_of_rows(call, rows[block])), head)
    return hidden, head.weight, head.bias, rows, kept


def gradients(saved: tuple[Tensor, ...], head: Head, call: Call, factor: Tensor, with_weight: bool) -> Gradients:
    """Gradients of hidden, weight and bias, where there are any, times `factor`, that of the loss; rounded as `linear_logprob`'s are."""
    hidden, weight, bias, rows, kept, *scored = saved
    head, part = replace(head, weight=weight, bias=bias), hidden[rows]
    if kept is None:
        softmax, slope, *of_rows = scored
        compact, *others = chunked_backward(part, head, _values(softmax, slope * factor, *of_rows), with_weight)
    else:
        compact, *others = gradients_of_kept(part, head, kept, with_weight, factor)
    weight_gradient, bias_gradient = others
    return torch.zeros_like(hidden).index_copy_(0, rows, compact), weight_gradient, bias_gradient


def _scored(
    hidden: Tensor, head: Head, call: Call, rows: Tensor, logprob: Tensor, entropy: Tensor, logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The softmax [2, C] of those rows and the gradient [C] of the loss by their log-probs, which are filled in, as `logits` [C, V] are."""
    targets, temperature = call.targets[rows], call.temperature[rows]
    mask = call.sampling_mask(rows)
    logprob[rows], entropy[rows], softmax = chunked_forward(hidden, head, targets, temperature, -100, True, mask, logits)
    return softmax, call.slope(logprob[rows], rows)


def _of_rows(call: Call, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Targets, temperatures and sampling mask of those rows: copies, which the caller may not change before the backward."""
    return call.targets[rows], call.temperature[rows], call.sampling_mask(rows)


def _values(softmax: Tensor, slope: Tensor, targets: Tensor, temperature: Tensor, sampling_mask: Tensor | None) -> Rows:
    return Rows(
        targets=targets,
        temperature=temperature,
        maximum=softmax[0],
        log_total=softmax[1],
        # Neither is looked at without a gradient of the entropy.
        logprob=softmax[0],
        entropy=softmax[0],
        logprob_gradient=slope,
        entropy_gradient=None,
        sampling_mask=sampling_mask,
    )
