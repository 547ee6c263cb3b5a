"""Triton kernels of `linear_logprob`: a tile of the head product goes from the accumulators straight into its softmax.

Logits live in base 2 from here on: x = z SCALE / temperature, one fused multiplication-addition from the logit z. SCALE is log2(e), times
what makes up for the bits that tensor cores cut off z (`polaris_kernels.gain`). A row's maximum times SCALE / temperature is rounded once,
and that number is subtracted everywhere, so its rounding cancels.
Legend: T rows (tokens), H hidden size, V vocabulary. Each tile of BLOCK_V columns leaves its maximum and its sums; they are merged in
the order of the columns, so a row's bits depend neither on T nor on the row's place. A logit of minus infinity is FLOOR in
between, and no maximum is as low: e is 0 then, and no difference of two infinities is taken.

One loop runs over all tiles of a program and, flattened into it, over the columns of H, so that the loads of the next tile begin
while this one's softmax is worked out. Nothing in a branch may touch the accumulator: ptxas would then wait for each
product, without an error.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import tensor

LN2 = tl.constexpr(0.6931471805599453)
FLOOR = tl.constexpr(-1e20)
LOWEST_MAXIMUM = tl.constexpr(-1e18)


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
def store_tile(
    matrix: tensor, row: tensor, column: tensor, rows: tensor, stride: tensor, tile: tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    TMA: tl.constexpr,
) -> None:  # fmt: skip
    """Write [ROWS, COLUMNS] of a row-major matrix of `rows` rows and `stride` columns in its dtype; what lies beyond is left out."""
    if TMA:
        matrix.store([row, column], tile.to(matrix.dtype))
    else:
        lines = row + tl.arange(0, ROWS)
        places = column + tl.arange(0, COLUMNS)
        inside = (lines < rows)[:, None] & (places < stride)[None, :]
        tl.store(matrix + lines.to(tl.int64)[:, None] * stride + places[None, :], tile.to(matrix.dtype.element_ty), mask=inside)


@triton.jit
def scaled(logits: tensor, scale: tensor, offset: tensor) -> tensor:
    """logits [R, C] times `scale` [R] minus `offset` [R], rounded once."""
    # Written out: later Tritons fuse nothing by themselves.
    zero = tl.zeros_like(logits)
    return tl.fma(logits, zero + scale[:, None], zero - offset[:, None])


@triton.jit
def bias_of(bias: tensor, columns: tensor, V: tensor, BIAS: tl.constexpr) -> tensor:
    """The bias of those columns, in float32; 0 where there is none."""
    if BIAS:
        return tl.load(bias + columns, mask=(columns >= 0) & (columns < V), other=0.0).to(tl.float32)
    else:
        return tl.zeros_like(columns).to(tl.float32)


@triton.jit
def dressed(
    logits: tensor, added: tensor, softcap: tensor, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ROUND: tl.constexpr,
) -> tensor:  # fmt: skip
    """Products become logits: bias, rounding to an engine's dtype, soft cap; minus infinity becomes FLOOR."""
    if BIAS:
        logits += added
    if ROUND is not None:
        logits = logits.to(ROUND).to(tl.float32)
    if SOFTCAP:
        # tanh(x) from exp, which every Triton target has; the clamp keeps exp finite where tanh is 1 already.
        bounded = tl.minimum(2 * logits / softcap, 40.0, propagate_nan=tl.PropagateNan.ALL)
        doubled = tl.exp(tl.maximum(bounded, -40.0, propagate_nan=tl.PropagateNan.ALL))
        logits = softcap * (doubled - 1) / (doubled + 1)
    if BIAS or ROUND is not None:
        logits = tl.maximum(logits, FLOOR, propagate_nan=tl.PropagateNan.ALL)
    return logits


@triton.jit
def sampled(
    logits: tensor, sampling_mask: tensor, row: tensor, column: tensor, rows: tensor, words: tensor, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> tensor:  # fmt: skip
    """Logits [ROWS, COLUMNS] with FLOOR for the tokens that the sampler cut off: bit j % 32 of word j // 32 of a row is 0."""
    lines = row + tl.arange(0, ROWS)
    places = column // 32 + tl.arange(0, COLUMNS // 32)
    inside = (lines < rows)[:, None] & (places < words)[None, :]
    bits = tl.load(sampling_mask + lines.to(tl.int64)[:, None] * words + places[None, :], mask=inside, other=0)
    kept = tl.reshape((bits[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1, [ROWS, COLUMNS]) != 0
    return tl.where(kept, logits, FLOOR)


@triton.jit
def forward_kernel(
    hidden: tensor, weight: tensor, bias: tensor, sampling_mask: tensor, temperature: tensor, reference: tensor, exponentials: tensor,
    maxima: tensor, sums: tensor, weighted: tensor, T: tensor, V: tensor, softcap: tensor, hidden_stride: tensor, weight_stride: tensor,
    kept_stride: tensor, H: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, GROUP: tl.constexpr,
    TMA: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ROUND: tl.constexpr, PRECISION: tl.constexpr, SCALE: tl.constexpr,
    KEEP: tl.constexpr,
) -> None:  # fmt: skip
    """Per tile and row: offset m, sum of e = 2^(x - m), sum of e log2 e, all [tiles, T].

    m is the largest x of the tile, or the row's `reference` [T] where that is given (`maxima` is then not written).
    With KEEP e itself is written to `exponentials` [T, V] in its dtype, and zeros behind it up to the next row.
    """
    row_blocks = tl.cdiv(T, BLOCK_T)
    tiles = tl.cdiv(V, BLOCK_V)
    for item in tl.range(tl.program_id(0), row_blocks * tiles, tl.num_programs(0), flatten=True):
        block, tile = place(item, row_blocks, tiles, GROUP)
        column = tile * BLOCK_V
        logits = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        for start in range(0, H, BLOCK_H):
            left = load_tile(hidden, block * BLOCK_T, start, T, hidden_stride, BLOCK_T, BLOCK_H, TMA)
            right = load_tile(weight, column, start, V, weight_stride, BLOCK_V, BLOCK_H, TMA)
            logits = tl.dot(left, right.T, logits, input_precision=PRECISION)
        rows = block * BLOCK_T + tl.arange(0, BLOCK_T)
        inside = rows < T
        # Loaded after the product, which leaves no registers to hold them meanwhile.
        scale = SCALE / tl.load(temperature + rows, mask=inside, other=1.0)
        columns = column + tl.arange(0, BLOCK_V)
        z = dressed(logits, bias_of(bias, columns, V, BIAS)[None, :], softcap, BIAS, SOFTCAP, ROUND)
        if sampling_mask is None:
            z = tl.where((columns < V)[None, :], z, FLOOR)
        else:
            z = sampled(z, sampling_mask, block * BLOCK_T, column, T, tl.cdiv(V, 32), BLOCK_T, BLOCK_V)
        place_of = tile.to(tl.int64) * T + rows
        if reference is None:
            offset = tl.maximum(tl.max(z, 1), LOWEST_MAXIMUM) * scale
            tl.store(maxima + place_of, offset, mask=inside)
        else:
            offset = tl.load(reference + rows, mask=inside, other=0.0)
        x = scaled(z, scale, offset)
        e = tl.exp2(x)
        tl.store(sums + place_of, tl.sum(e, 1), mask=inside)
        tl.store(weighted + place_of, tl.sum(x * e, 1), mask=inside)
        if KEEP:
            store_tile(exponentials, block * BLOCK_T, column, T, kept_stride, e, BLOCK_T, BLOCK_V, TMA)


@triton.jit
def target_logit_kernel(
    hidden: tensor, weight: tensor, bias: tensor, sampling_mask: tensor, targets: tensor, logits: tensor, T: tensor, V: tensor,
    softcap: tensor, hidden_stride: tensor, weight_stride: tensor, H: tl.constexpr, BLOCK: tl.constexpr, BLOCK_H: tl.constexpr,
    BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ROUND: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """The logit of each row's target, [T]; NaN where the target is not in [0, V).

    It is the diagonal of a product of tensor cores, which sum over H in the same order here as in `forward_kernel`: so it has the rounding
    of the logit that is in the row's sum, and the two cancel where the target is nearly certain.
    """
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(targets + rows, mask=rows < T, other=-1)
    there = (target >= 0) & (target < V)
    products = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(0, H, BLOCK_H):
        places = start + tl.arange(0, BLOCK_H)
        left = load_tile(hidden, tl.program_id(0) * BLOCK, start, T, hidden_stride, BLOCK, BLOCK_H, False)
        right = tl.load(weight + target[:, None] * weight_stride + places[None, :], mask=there[:, None], other=0.0)
        products = tl.dot(left, right.T, products, input_precision=PRECISION)
    one = tl.arange(0, BLOCK)[:, None] == tl.arange(0, BLOCK)[None, :]
    z = dressed(tl.sum(tl.where(one, products, 0.0), 1), bias_of(bias, target, V, BIAS), softcap, BIAS, SOFTCAP, ROUND)
    if sampling_mask is not None:
        bits = tl.load(sampling_mask + rows.to(tl.int64) * tl.cdiv(V, 32) + target // 32, mask=there, other=0)
        z = tl.where((bits >> (target % 32).to(tl.int32)) & 1 != 0, z, FLOOR)
    tl.store(logits + rows, tl.where(there, z, float("nan")), mask=rows < T)


@triton.jit
def merge_kernel(
    maxima: tensor, sums: tensor, weighted: tensor, maximum: tensor, total: tensor, moment: tensor, T: tensor, parts: tensor,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Merge the offsets and sums of `parts` neighbouring ranges of columns, [parts, T] each, in their order, to [T] each.

    Without `maxima` all have one offset, and the sums are just added.
    """
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < T
    highest = tl.full([BLOCK], -3e38, tl.float32)
    added = tl.zeros([BLOCK], tl.float32)
    logarithms = tl.zeros([BLOCK], tl.float32)
    for part in range(parts):
        place_of = tl.cast(part, tl.int64) * T + rows
        s = tl.load(sums + place_of, mask=inside, other=1.0)
        w = tl.load(weighted + place_of, mask=inside, other=0.0)
        if maxima is None:
            logarithms += w
            added += s
        else:
            m = tl.load(maxima + place_of, mask=inside, other=0.0)
            higher = tl.maximum(highest, m, propagate_nan=tl.PropagateNan.ALL)
            old, new = highest - higher, m - higher
            old_factor, new_factor = tl.exp2(old), tl.exp2(new)
            logarithms = old_factor * (logarithms + old * added) + new_factor * (w + new * s)
            added = old_factor * added + new_factor * s
            highest = higher
    if maxima is not None:
        tl.store(maximum + rows, highest, mask=inside)
    tl.store(total + rows, added, mask=inside)
    tl.store(moment + rows, logarithms, mask=inside)


@triton.jit
def finish_kernel(
    maximum: tensor, total: tensor, moment: tensor, target_logits: tensor, targets: tensor, temperature: tensor, logprob: tensor,
    entropy: tensor, log_total: tensor, T: tensor, V: tensor, ignore_index: tensor, BLOCK: tl.constexpr, SCALE: tl.constexpr,
) -> None:  # fmt: skip
    """Merged sums become log-prob and entropy in nats and log2 of the sum of e, all [T].

    Log-prob and entropy are 0 where the target is `ignore_index`; the log-prob is NaN for any other target outside [0, V).
    """
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < T
    scale = SCALE / tl.load(temperature + rows, mask=inside, other=1.0)
    m = tl.load(maximum + rows, mask=inside, other=0.0)
    s = tl.load(total + rows, mask=inside, other=1.0)
    log2_total = tl.log2(s)
    mean = tl.load(moment + rows, mask=inside, other=0.0) / s
    target = tl.load(targets + rows, mask=inside, other=0)
    z = tl.load(target_logits + rows, mask=inside, other=0.0)
    # A row of only minus infinity has a sum of 0, and no softmax.
    chosen = tl.where((z <= FLOOR) & (s > 0), float("-inf"), tl.fma(z, scale, -m) - log2_total)
    chosen = tl.where((target >= 0) & (target < V) & (s > 0), chosen, float("nan"))
    ignored = target == ignore_index
    # A certain token's is 0 but for rounding, to either side.
    chosen = tl.minimum(chosen * LN2, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(logprob + rows, tl.where(ignored, 0.0, chosen), mask=inside)
    tl.store(entropy + rows, tl.where(ignored, 0.0, (log2_total - mean) * LN2), mask=inside)
    tl.store(log_total + rows, log2_total, mask=inside)


@triton.jit
def gradient_kernel(
    hidden: tensor, weight: tensor, bias: tensor, sampling_mask: tensor, temperature: tensor, offset: tensor, level: tensor,
    slope: tensor, gradient: tensor, T: tensor, V: tensor, first: tensor, width: tensor, softcap: tensor, hidden_stride: tensor,
    weight_stride: tensor,
    gradient_stride: tensor, H: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, GROUP: tl.constexpr,
    TMA: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ROUND: tl.constexpr, PRECISION: tl.constexpr, SCALE: tl.constexpr,
    ENTROPY: tl.constexpr,
) -> None:  # fmt: skip
    """p (level + slope log2 p) for the `width` columns from `first` on, into `gradient` [T, width]: the gradient of the logits before
    bias but at the targets. p = 2^(x - offset); `temperature`, `offset`, `level` and `slope` are [T].
    """
    row_blocks = tl.cdiv(T, BLOCK_T)
    tiles = tl.cdiv(width, BLOCK_V)
    for item in tl.range(tl.program_id(0), row_blocks * tiles, tl.num_programs(0), flatten=True):
        block, tile = place(item, row_blocks, tiles, GROUP)
        column = first + tile * BLOCK_V
        logits = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        for start in range(0, H, BLOCK_H):
            left = load_tile(hidden, block * BLOCK_T, start, T, hidden_stride, BLOCK_T, BLOCK_H, TMA)
            right = load_tile(weight, column, start, V, weight_stride, BLOCK_V, BLOCK_H, TMA)
            logits = tl.dot(left, right.T, logits, input_precision=PRECISION)
        rows = block * BLOCK_T + tl.arange(0, BLOCK_T)
        inside = rows < T
        scale = SCALE / tl.load(temperature + rows, mask=inside, other=1.0)
        columns = column + tl.arange(0, BLOCK_V)
        z = dressed(logits, bias_of(bias, columns, V, BIAS)[None, :], softcap, BIAS, SOFTCAP, ROUND)
        kept = z
        if sampling_mask is not None:
            kept = sampled(z, sampling_mask, block * BLOCK_T, column, T, tl.cdiv(V, 32), BLOCK_T, BLOCK_V)
        x = scaled(kept, scale, tl.load(offset + rows, mask=inside, other=0.0))
        factor = tl.load(level + rows, mask=inside, other=0.0)
        p = tl.exp2(x)
        if ENTROPY:
            p *= scaled(x, tl.load(slope + rows, mask=inside, other=0.0), -factor)
        else:
            p *= factor[:, None]
        if SOFTCAP:
            capped = z / softcap
            p *= 1 - capped * capped
        store_tile(gradient, block * BLOCK_T, tile * BLOCK_V, T, gradient_stride, p, BLOCK_T, BLOCK_V, TMA)


@triton.jit
def target_kernel(
    matrix: tensor, targets: tensor, values: tensor, T: tensor, first: tensor, width: tensor, stride: tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """matrix[row, target - first] = value where the target lies among the `width` columns from `first` on; [T] both."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place_of = tl.load(targets + rows, mask=rows < T, other=-1) - first
    value = tl.load(values + rows, mask=rows < T, other=0.0).to(matrix.dtype.element_ty)
    tl.store(matrix + rows.to(tl.int64) * stride + place_of, value, mask=(rows < T) & (place_of >= 0) & (place_of < width))
