"""The Triton kernel of `linear_policy_loss`: kept exponentials become logit gradients where they lie."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import tensor

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def gradient_kernel(
    exponentials: tensor, maxima: tensor, targets: tensor, temperature: tensor, row_maximum: tensor, log_total: tensor,
    logprob: tensor, logprob_gradient: tensor, T: tensor, stride: tensor, softcap: tensor,
    ROWS: tl.constexpr, TILE: tl.constexpr, SOFTCAP: tl.constexpr,
) -> None:  # fmt: skip
    """In place, for one tile: e -> g ([j = y] - p_j) / temperature, where p = e 2^(m_tile - m) / sum.

    The target's probability comes from its float32 log-prob, not from the rounded e, so 1 - p keeps its digits near p = 1. Where e is 0, as
    behind the vocabulary, the gradient is too.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tile = tl.program_id(1)
    columns = tile * TILE + tl.arange(0, TILE)
    inside = rows < T
    target = tl.load(targets + rows, mask=inside, other=-1)
    divisor = tl.load(temperature + rows, mask=inside, other=1.0)
    scale = LOG2E / divisor
    up = tl.load(logprob_gradient + rows, mask=inside, other=0.0) / divisor
    tile_maximum = tl.load(maxima + tile.to(tl.int64) * T + rows, mask=inside, other=0.0)
    above = tile_maximum - tl.load(row_maximum + rows, mask=inside, other=0.0)
    factor = tl.exp2(above - tl.load(log_total + rows, mask=inside, other=0.0))
    log_chosen = tl.load(logprob + rows, mask=inside, other=0.0)
    chosen = tl.exp(log_chosen)
    area = inside[:, None] & (columns < stride)[None, :]
    places = exponentials + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    e = tl.load(places, mask=area, other=0.0).to(tl.float32)
    slope = tl.where(columns[None, :] == target[:, None], 1.0 - chosen[:, None], -e * factor[:, None]) * up[:, None]
    if SOFTCAP:
        # Where e has underflowed the probability is 0, and so is the gradient, but the target's: its logit comes from its log-prob.
        z = (tile_maximum[:, None] + tl.log2(tl.maximum(e, 1e-30))) / scale[:, None]
        offset = tl.load(row_maximum + rows, mask=inside, other=0.0) + tl.load(log_total + rows, mask=inside, other=0.0)
        z = tl.where(columns[None, :] == target[:, None], ((log_chosen * LOG2E + offset) / scale)[:, None], z)
        slope *= 1 - (z / softcap) * (z / softcap)
    tl.store(places, slope.to(exponentials.dtype.element_ty), mask=area)


@triton.jit
def zero_rows_kernel(matrix: tensor, keep: tensor, columns: tensor, stride: tensor, BLOCK: tl.constexpr) -> None:
    """Write zeros into every row of a matrix of so many `columns` whose `keep`, [rows], is False."""
    row = tl.program_id(0)
    if tl.load(keep + row) == 0:
        for start in range(0, columns, BLOCK):
            places = start + tl.arange(0, BLOCK)
            tl.store(matrix + row.to(tl.int64) * stride + places, tl.zeros([BLOCK], matrix.dtype.element_ty), mask=places < columns)
