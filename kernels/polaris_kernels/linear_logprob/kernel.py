"""Triton kernels of `linear_logprob`: a tile of the head product goes from the accumulators straight into an online softmax.

Exponentials are e = 2^((z - m) log2(e) / temperature): the maximum m is taken off the logit z before anything is rounded, so the
error is relative to the difference, as in a softmax of plain torch.
Legend: T rows (tokens), H hidden size, V vocabulary. A strip is STRIP neighbouring tiles of BLOCK_V columns; what a strip
is depends on V alone, and strips are merged in order, so a row's bits do not depend on T or on the row's place.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import tensor

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def place(
    item: tensor, row_blocks: tensor, columns: tensor, GROUP: tl.constexpr,
) -> tuple[tensor, tensor]:  # fmt: skip
    """Row block and column of a work item: GROUP row blocks walk through the columns together, so both operands stay in L2."""
    group = item // (GROUP * columns)
    first = group * GROUP
    size = tl.minimum(row_blocks - first, GROUP)
    inside = item - group * GROUP * columns
    return first + inside % size, inside // size


@triton.jit
def load_tile(
    matrix: tensor, row: tensor, column: tensor, rows: tensor, stride: tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    TMA: tl.constexpr,
) -> tensor:  # fmt: skip
    """[ROWS, COLUMNS] of a row-major matrix of `rows` rows and whole COLUMNS; zero below it."""
    if TMA:
        return matrix.load([row, column])
    else:
        lines = row + tl.arange(0, ROWS)
        places = column + tl.arange(0, COLUMNS)
        return tl.load(matrix + lines.to(tl.int64)[:, None] * stride + places[None, :], mask=(lines < rows)[:, None], other=0.0)


@triton.jit
def logits_tile(
    hidden: tensor, weight: tensor, bias: tensor, row: tensor, column: tensor, T: tensor, V: tensor, hidden_stride: tensor,
    weight_stride: tensor, softcap: tensor, H: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
    TMA: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ROUND: tl.constexpr, PRECISION: tl.constexpr,
) -> tensor:  # fmt: skip
    """[BLOCK_T, BLOCK_V] float32 logits before the temperature: product, bias, rounding to an engine's dtype, soft cap."""
    logits = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
    for start in range(0, H, BLOCK_H):
        left = load_tile(hidden, row, start, T, hidden_stride, BLOCK_T, BLOCK_H, TMA)
        right = load_tile(weight, column, start, V, weight_stride, BLOCK_V, BLOCK_H, TMA)
        logits = tl.dot(left, right.T, logits, input_precision=PRECISION)
    if BIAS:
        columns = column + tl.arange(0, BLOCK_V)
        logits += tl.load(bias + columns, mask=columns < V, other=0.0).to(tl.float32)[None, :]
    if ROUND is not None:
        logits = logits.to(ROUND).to(tl.float32)
    if SOFTCAP:
        # tanh(x) from exp, which every Triton target has; the clamp keeps exp finite where tanh is 1 already.
        doubled = tl.exp(tl.maximum(tl.minimum(2 * logits / softcap, 40.0), -40.0))
        logits = softcap * (doubled - 1) / (doubled + 1)
    return logits


@triton.jit
def split_columns(tile: tensor) -> tuple[tensor, tensor]:
    """The left and the right half of a tile."""
    return tl.split(tl.permute(tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def quarter_of(tile: tensor, part: tl.constexpr) -> tensor:
    """A quarter of a tile's columns: a whole tile and what is made of it do not fit into the registers at once."""
    return split_columns(split_columns(tile)[part // 2])[part % 2]


@triton.jit
def forward_kernel(
    hidden: tensor, weight: tensor, bias: tensor, targets: tensor, temperature: tensor, exponentials: tensor, maxima: tensor,
    sums: tensor, weighted: tensor, target_logits: tensor, T: tensor, V: tensor, strips: tensor, softcap: tensor, hidden_stride: tensor,
    weight_stride: tensor, kept_stride: tensor, H: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
    STRIP: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr, TMA: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    ROUND: tl.constexpr, PRECISION: tl.constexpr, KEEP: tl.constexpr,
) -> None:  # fmt: skip
    """Per strip and row: maximum m, sum of e, sum of e log2 e, all [strips, T]; the logit of the target, [T].

    With KEEP (and STRIP 1) e itself is written to `exponentials` [T, V] in its dtype, and zeros behind it up to the next row.
    """
    row_blocks = tl.cdiv(T, BLOCK_T)
    for item in tl.range(tl.program_id(0), row_blocks * strips, PROGRAMS):
        block, strip = place(item, row_blocks, strips, GROUP)
        rows = block * BLOCK_T + tl.arange(0, BLOCK_T)
        maximum = tl.full([BLOCK_T], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_T], tl.float32)
        moment = tl.zeros([BLOCK_T], tl.float32)
        # The last strip may reach beyond V; what lies there changes nothing.
        for tile in range(STRIP):
            column = (strip * STRIP + tile) * BLOCK_V
            z = logits_tile(hidden, weight, bias, block * BLOCK_T, column, T, V, hidden_stride, weight_stride, softcap,
                            H, BLOCK_T, BLOCK_V, BLOCK_H, TMA, BIAS, SOFTCAP, ROUND, PRECISION)  # fmt: skip
            # Loaded after the product, which leaves no registers to hold them meanwhile.
            target = tl.load(targets + rows, mask=rows < T, other=-1)
            scale = LOG2E / tl.load(temperature + rows, mask=rows < T, other=1.0)
            columns = column + tl.arange(0, BLOCK_V)
            z = tl.where((columns < V)[None, :], z, float("-inf"))
            here = (target >= column) & (target < tl.minimum(column + BLOCK_V, V))
            if tl.max(here.to(tl.int32), 0) > 0:
                chosen = tl.zeros([BLOCK_T], tl.float32)
                for part in tl.static_range(4):
                    those = column + part * (BLOCK_V // 4) + tl.arange(0, BLOCK_V // 4)
                    chosen += tl.sum(tl.where(those[None, :] == target[:, None], quarter_of(z, part), 0.0), 1)
                tl.store(target_logits + rows, chosen, mask=here)
            higher = tl.maximum(maximum, tl.max(z, 1))
            # Rows of only minus infinity would give inf - inf; their sums must stay at zero instead.
            shift = tl.where(higher == float("-inf"), 0.0, higher)
            drop = tl.where(maximum == float("-inf"), 0.0, (maximum - shift) * scale)
            decay = tl.where(maximum == float("-inf"), 0.0, tl.exp2(drop))
            moment = decay * (moment + drop * total)
            total = decay * total
            maximum = higher
            for part in tl.static_range(4):
                kept = column + part * (BLOCK_V // 4) + tl.arange(0, BLOCK_V // 4)
                lower = (quarter_of(z, part) - shift[:, None]) * scale[:, None]
                e = tl.exp2(lower)
                total += tl.sum(e, 1)
                moment += tl.sum(tl.where(e > 0, lower * e, 0.0), 1)
                if KEEP:
                    inside = (rows < T)[:, None] & (kept < kept_stride)[None, :]
                    e = e.to(exponentials.dtype.element_ty)
                    tl.store(exponentials + rows.to(tl.int64)[:, None] * kept_stride + kept[None, :], e, mask=inside)
        place_of = strip.to(tl.int64) * T + rows
        tl.store(maxima + place_of, maximum, mask=rows < T)
        tl.store(sums + place_of, total, mask=rows < T)
        tl.store(weighted + place_of, moment, mask=rows < T)


@triton.jit
def merge_kernel(
    maxima: tensor, sums: tensor, weighted: tensor, target_logits: tensor, targets: tensor, temperature: tensor, logprob: tensor,
    entropy: tensor, row_maximum: tensor, log_total: tensor, T: tensor, V: tensor, strips: tensor, ignore_index: tensor,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Merge strips in order: log-prob and entropy in nats, maximum, and log2 of the sum of e, all [T].

    Log-prob and entropy are 0 where the target is `ignore_index`; the log-prob is NaN for any other target outside [0, V).
    """
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < T
    scale = LOG2E / tl.load(temperature + rows, mask=inside, other=1.0)
    maximum = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    moment = tl.zeros([BLOCK], tl.float32)
    for strip in range(strips):
        place_of = tl.cast(strip, tl.int64) * T + rows
        m = tl.load(maxima + place_of, mask=inside, other=0.0)
        s = tl.load(sums + place_of, mask=inside, other=1.0)
        w = tl.load(weighted + place_of, mask=inside, other=0.0)
        higher = tl.maximum(maximum, m)
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        old = tl.where(maximum == float("-inf"), 0.0, (maximum - shift) * scale)
        new = tl.where(m == float("-inf"), 0.0, (m - shift) * scale)
        old_factor = tl.where(maximum == float("-inf"), 0.0, tl.exp2(old))
        new_factor = tl.where(m == float("-inf"), 0.0, tl.exp2(new))
        moment = old_factor * (moment + old * total) + new_factor * (w + new * s)
        total = old_factor * total + new_factor * s
        maximum = higher
    log2_total = tl.log2(total)
    target = tl.load(targets + rows, mask=inside, other=0)
    chosen = tl.load(target_logits + rows, mask=inside, other=0.0)
    chosen = tl.where((target >= 0) & (target < V), chosen, float("nan"))
    ignored = target == ignore_index
    tl.store(logprob + rows, tl.where(ignored, 0.0, ((chosen - maximum) * scale - log2_total) * LN2), mask=inside)
    tl.store(entropy + rows, tl.where(ignored, 0.0, (log2_total - moment / total) * LN2), mask=inside)
    tl.store(row_maximum + rows, maximum, mask=inside)
    tl.store(log_total + rows, log2_total, mask=inside)


@triton.jit
def gradient_kernel(
    hidden: tensor, weight: tensor, bias: tensor, targets: tensor, temperature: tensor, row_maximum: tensor, log_total: tensor,
    entropy: tensor, logprob_gradient: tensor, entropy_gradient: tensor, gradient: tensor, T: tensor, V: tensor, first: tensor,
    stride: tensor, softcap: tensor, hidden_stride: tensor, weight_stride: tensor, H: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr, TMA: tl.constexpr,
    BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ROUND: tl.constexpr, PRECISION: tl.constexpr, ENTROPY: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient of the logits before bias, for columns from `first` on, into `gradient` [T, stride] in its dtype.

    The last columns may lie beyond V: what is written there is of no use.
    dL/dz_j = g ([j = y] - p_j) - h p_j (log p_j + entropy) over the temperature, with g and h the gradients of the two outputs.
    """
    row_blocks = tl.cdiv(T, BLOCK_T)
    for item in tl.range(tl.program_id(0), row_blocks * tl.cdiv(stride, BLOCK_V), PROGRAMS):
        block, tile = place(item, row_blocks, tl.cdiv(stride, BLOCK_V), GROUP)
        rows = block * BLOCK_T + tl.arange(0, BLOCK_T)
        target = tl.load(targets + rows, mask=rows < T, other=-1)
        divisor = tl.load(temperature + rows, mask=rows < T, other=1.0)
        scale = LOG2E / divisor
        maximum = tl.load(row_maximum + rows, mask=rows < T, other=0.0)
        log2_total = tl.load(log_total + rows, mask=rows < T, other=0.0)
        # The gradient as [j = y] up - p (level + slope log2 p), with everything of the row alone worked out here.
        up = tl.load(logprob_gradient + rows, mask=rows < T, other=0.0) / divisor
        level = up
        if ENTROPY:
            h = tl.load(entropy_gradient + rows, mask=rows < T, other=0.0) / divisor
            level += h * tl.load(entropy + rows, mask=rows < T, other=0.0)
            slope = h * LN2
        z = logits_tile(hidden, weight, bias, block * BLOCK_T, first + tile * BLOCK_V, T, V, hidden_stride, weight_stride, softcap,
                        H, BLOCK_T, BLOCK_V, BLOCK_H, TMA, BIAS, SOFTCAP, ROUND, PRECISION)  # fmt: skip
        inner = tile * BLOCK_V + tl.arange(0, BLOCK_V)
        logp = (z - maximum[:, None]) * scale[:, None] - log2_total[:, None]
        p = tl.exp2(logp)
        if ENTROPY:
            p *= level[:, None] + slope[:, None] * tl.maximum(logp, -1000.0)
        else:
            p *= level[:, None]
        z_gradient = tl.where((first + inner)[None, :] == target[:, None], up[:, None], 0.0) - p
        if SOFTCAP:
            capped = z / softcap
            z_gradient *= 1 - capped * capped
        inside = (rows < T)[:, None] & (inner < stride)[None, :]
        z_gradient = z_gradient.to(gradient.dtype.element_ty)
        tl.store(gradient + rows.to(tl.int64)[:, None] * stride + inner[None, :], z_gradient, mask=inside)
