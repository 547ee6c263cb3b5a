"""Triton kernels of `logprob_from_logits`: one read forward; one read and one write backward.

Legend: T rows, V vocabulary. A program of the forward owns ROWS whole rows, so a row's bits do not depend on the others.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import tensor

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def forward_kernel(
    logits: tensor, targets: tensor, temperature: tensor, logprob: tensor, entropy: tensor, row_maximum: tensor, log_total: tensor,
    T: tensor, V: tensor, stride: tensor, ignore_index: tensor, ROWS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Log-prob and entropy [T] in nats, maximum logit [T], and log2 of the softmax's sum [T]; see `linear_logprob.kernel`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < T
    scale = LOG2E / tl.load(temperature + rows, mask=inside, other=1.0)
    start = logits + rows.to(tl.int64) * stride
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    moment = tl.zeros([ROWS], tl.float32)
    for first in range(0, V, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        z = tl.load(start[:, None] + columns[None, :], mask=inside[:, None] & (columns < V)[None, :], other=float("-inf")).to(tl.float32)
        higher = tl.maximum(maximum, tl.max(z, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        drop = tl.where(maximum == float("-inf"), 0.0, (maximum - shift) * scale)
        decay = tl.where(maximum == float("-inf"), 0.0, tl.exp2(drop))
        lower = (z - shift[:, None]) * scale[:, None]
        e = tl.exp2(lower)
        moment = decay * (moment + drop * total) + tl.sum(tl.maximum(lower, -1000.0) * e, 1)
        total = decay * total + tl.sum(e, 1)
        maximum = higher
    log2_total = tl.log2(total)
    target = tl.load(targets + rows, mask=inside, other=0)
    within = (target >= 0) & (target < V)
    chosen = tl.load(start + target, mask=inside & within, other=0.0).to(tl.float32)
    chosen = tl.where(within, chosen, float("nan"))
    ignored = target == ignore_index
    tl.store(logprob + rows, tl.where(ignored, 0.0, ((chosen - maximum) * scale - log2_total) * LN2), mask=inside)
    tl.store(entropy + rows, tl.where(ignored, 0.0, (log2_total - moment / total) * LN2), mask=inside)
    tl.store(row_maximum + rows, maximum, mask=inside)
    tl.store(log_total + rows, log2_total, mask=inside)


@triton.jit
def backward_kernel(
    logits: tensor, targets: tensor, temperature: tensor, row_maximum: tensor, log_total: tensor, entropy: tensor,
    logprob_gradient: tensor, entropy_gradient: tensor, gradient: tensor, T: tensor, V: tensor, stride: tensor,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ENTROPY: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient of the logits into `gradient` [T, V], which may be the logits: every element is read before it is written."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < T
    target = tl.load(targets + rows, mask=inside, other=-1)
    divisor = tl.load(temperature + rows, mask=inside, other=1.0)
    scale = LOG2E / divisor
    up = tl.load(logprob_gradient + rows, mask=inside, other=0.0)
    h = tl.zeros([ROWS], tl.float32)
    level = up
    if ENTROPY:
        h = tl.load(entropy_gradient + rows, mask=inside, other=0.0)
        level += h * tl.load(entropy + rows, mask=inside, other=0.0)
    # Rows of zeros are not read.
    live = inside & ((up != 0) | (h != 0))
    area = inside[:, None] & (columns < V)[None, :]
    start = rows.to(tl.int64)[:, None] * stride
    z = tl.load(logits + start + columns[None, :], mask=live[:, None] & (columns < V)[None, :], other=0.0).to(tl.float32)
    maximum = tl.load(row_maximum + rows, mask=live, other=0.0)
    logp = (z - maximum[:, None]) * scale[:, None] - tl.load(log_total + rows, mask=live, other=0.0)[:, None]
    p = tl.exp2(logp) * (level[:, None] + (h * LN2)[:, None] * tl.maximum(logp, -1000.0))
    result = (tl.where(columns[None, :] == target[:, None], up[:, None], 0.0) - p) / divisor[:, None]
    result = tl.where(live[:, None], result, 0.0)
    tl.store(gradient + start + columns[None, :], result.to(gradient.dtype.element_ty), mask=area)
