"""Triton kernels of `logprob_from_logits`: one read forward; one read and one write backward.

Logits come in blocks of REPEATS tiles [LANES, VECTOR]: a thread owns a lane and loads VECTOR neighbours, 16 bytes, at once.
Exponentials are e = 2^(z s - m), with s = log2(e) / temperature and m the largest z s as it was rounded once: a multiply-add that rounds
once, and the same m wherever e is used, so an offset that all logits share costs no precision.
Legend: T rows, V vocabulary. A program of the forward owns a whole row, so a row's bits do not depend on the others.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import tensor

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-(2.0**100))
"""Lower logits count as this one, which may be multiplied by an exponential of 0."""
FLOOR = tl.constexpr(-(2.0**40))
"""The m of no logits."""
LARGEST = tl.constexpr(2.0**30)
"""Beyond it the rounding of m may be as large as an exponent; a row whose m is, as that of infinite logits, has no softmax."""


@triton.jit
def widened(z: tensor) -> tensor:
    """In float32. The bits of a bfloat16 are the upper half of that: one instruction, where Triton's own conversion takes two."""
    if z.dtype == tl.bfloat16:
        return (z.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    return z.to(tl.float32)


@triton.jit
def load_block(
    start: tensor, places: tensor, left: tensor, REPEATS: tl.constexpr, STEP: tl.constexpr, MASK: tl.constexpr
) -> tuple[tensor, ...]:
    """REPEATS tiles [LANES, VECTOR], STEP numbers apart; with MASK minus infinity from the column `left` on."""
    block: tl.tuple = ()
    for i in tl.static_range(REPEATS):
        if MASK:
            block += (tl.load(start + i * STEP + places, mask=i * STEP + places < left, other=float("-inf")),)
        else:
            block += (tl.load(start + i * STEP + places),)
    return block


@triton.jit
def sampled(
    block: tl.tuple, words: tensor, first: tensor, V: tensor, REPEATS: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr
) -> tuple[tensor, ...]:
    """The block from the column `first` on with minus infinity for the tokens that the sampler cut off; a vector lies within one word."""
    left: tl.tuple = ()
    for i in tl.static_range(REPEATS):
        column = first + (i * LANES + tl.arange(0, LANES)[:, None]) * VECTOR
        bits = tl.load(words + column // 32, mask=column < V, other=0) >> column % 32
        left += (tl.where(bits & (1 << tl.arange(0, VECTOR)[None, :]) != 0, block[i], float("-inf")),)
    return left


@triton.jit
def exponentials(tile: tensor, scales: tensor, offset: tensor) -> tuple[tensor, tensor]:
    """log2 e, not below what may be multiplied by e, and e."""
    lower = tl.fma(tl.maximum(widened(tile), LOWEST, propagate_nan=tl.PropagateNan.ALL), scales, offset)
    return lower, tl.exp2(lower)


@triton.jit
def add_block(
    block: tl.tuple, scale: tensor, maximum: tensor, total: tensor, moment: tensor, REPEATS: tl.constexpr
) -> tuple[tensor, tensor, tensor]:
    """A block more in the online softmax of each lane: the m of its exponentials e, their sum, the sum of e log2 e; [LANES] each."""
    largest = widened(block[0])
    for i in tl.static_range(1, REPEATS):
        largest = tl.maximum(largest, widened(block[i]))
    higher = tl.maximum(maximum, tl.max(largest, 1) * scale)
    scales, offset = tl.zeros_like(largest) + scale, tl.zeros_like(largest) - higher[:, None]
    lower, new = exponentials(block[0], scales, offset)
    new_moment = lower * new
    for i in tl.static_range(1, REPEATS):
        lower, e = exponentials(block[i], scales, offset)
        new += e
        new_moment = tl.fma(lower, e, new_moment)
    drop = maximum - higher
    decay = tl.exp2(drop)
    moment = tl.fma(decay, tl.fma(drop, total, moment), tl.sum(new_moment, 1))
    total = tl.fma(decay, total, tl.sum(new, 1))
    return higher, total, moment


@triton.jit
def forward_kernel(
    logits: tensor, sampling_mask: tensor, targets: tensor, temperature: tensor, logprob: tensor, entropy: tensor, row_maximum: tensor,
    log_total: tensor, V: tensor, stride: tensor, ignore_index: tensor, REPEATS: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr,
) -> None:  # fmt: skip
    """Log-prob and entropy [T] in nats, m [T] of the row, and log2 of its sum of exponentials [T]; `stride` counts vectors."""
    row = tl.program_id(0)
    STEP: tl.constexpr = LANES * VECTOR
    BLOCK: tl.constexpr = REPEATS * STEP
    scale = LOG2E / tl.load(temperature + row)
    start = logits + row.to(tl.int64) * stride * VECTOR
    places = tl.arange(0, LANES)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    if sampling_mask is not None:
        words = sampling_mask + row.to(tl.int64) * tl.cdiv(V, 32)
    maximum = tl.full([LANES], FLOOR, tl.float32)
    total = tl.zeros([LANES], tl.float32)
    moment = tl.zeros([LANES], tl.float32)
    whole = V // BLOCK * BLOCK
    for first in range(0, whole, BLOCK):
        block = load_block(start + first, places, V, REPEATS, STEP, False)
        if sampling_mask is not None:
            block = sampled(block, words, first, V, REPEATS, LANES, VECTOR)
        maximum, total, moment = add_block(block, scale, maximum, total, moment, REPEATS)
    block = load_block(start + whole, places, V - whole, REPEATS, STEP, True)
    if sampling_mask is not None:
        block = sampled(block, words, whole, V, REPEATS, LANES, VECTOR)
    maximum, total, moment = add_block(block, scale, maximum, total, moment, REPEATS)
    top = tl.max(maximum, 0)
    drop = maximum - top
    decay = tl.exp2(drop)
    moment = tl.sum(decay * tl.fma(drop, total, moment), 0)
    total = tl.sum(decay * total, 0)
    log2_total = tl.where(tl.abs(top) < LARGEST, tl.log2(total), float("nan"))
    target = tl.load(targets + row)
    within = (target >= 0) & (target < V)
    chosen = tl.load(start + target, mask=within, other=float("nan")).to(tl.float32)
    if sampling_mask is not None:
        bits = tl.load(words + target // 32, mask=within, other=-1)
        chosen = tl.where((bits >> (target % 32).to(tl.int32)) & 1 == 0, float("-inf"), chosen)
    ignored = target == ignore_index
    tl.store(logprob + row, tl.where(ignored, 0.0, (tl.fma(chosen, scale, -top) - log2_total) * LN2))
    tl.store(entropy + row, tl.where(ignored, 0.0, (log2_total - moment / total) * LN2))
    tl.store(row_maximum + row, top)
    tl.store(log_total + row, log2_total)


@triton.jit
def gradient_tile(z: tensor, scale: tensor, maximum: tensor, level: tensor, slope: tensor, ENTROPY: tl.constexpr) -> tensor:
    """e (level + slope log2 e) of a tile, e being relative to `maximum`; without ENTROPY e level."""
    z = widened(z)
    zeros = tl.zeros_like(z)
    lower = tl.fma(z, zeros + scale, zeros - maximum)
    e = tl.exp2(lower)
    if ENTROPY:
        level = tl.fma(tl.maximum(lower, -1000.0), zeros + slope, zeros + level)
    return e * level


@triton.jit
def backward_kernel(
    logits: tensor, sampling_mask: tensor, targets: tensor, temperature: tensor, row_maximum: tensor, log_total: tensor, logprob: tensor,
    entropy: tensor, logprob_gradient: tensor, entropy_gradient: tensor, gradient: tensor, V: tensor, stride: tensor, ignore_index: tensor,
    parts: tensor, span: tensor, REPEATS: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr, ENTROPY: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient of the logits into `gradient` [T, V], which may be the logits: every number is read before it is written.

    A program owns `span` columns, whole blocks, of a row. dL/dz_j = (g ([j = y] - p_j) - h p_j (log p_j + entropy)) / temperature; that of
    the target is worked out from its float32 log-prob and written last.
    """
    row, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    STEP: tl.constexpr = LANES * VECTOR
    BLOCK: tl.constexpr = REPEATS * STEP
    places = tl.arange(0, LANES)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    begin = part * span
    end = tl.minimum(begin + span, V)
    whole = begin + (end - begin) // BLOCK * BLOCK
    source = logits + row.to(tl.int64) * stride * VECTOR
    sink = gradient + row.to(tl.int64) * stride * VECTOR
    target = tl.load(targets + row)
    g = tl.load(logprob_gradient + row)
    h = tl.load(entropy_gradient + row) if ENTROPY else 0.0
    if (target == ignore_index) | ((g == 0) & (h == 0)):
        zeros = tl.zeros([LANES, VECTOR], gradient.dtype.element_ty)
        for first in range(begin, whole, STEP):
            tl.store(sink + first + places, zeros)
        for i in tl.static_range(REPEATS):
            tl.store(sink + whole + i * STEP + places, zeros, mask=i * STEP + places < end - whole)
    else:
        divisor = tl.load(temperature + row)
        scale = LOG2E / divisor
        maximum = tl.load(row_maximum + row)
        log2_total = tl.load(log_total + row)
        h_entropy = h * tl.load(entropy + row)
        share = tl.exp2(-log2_total) / divisor
        level = -share * (g + h_entropy - h * log2_total * LN2)
        slope = -share * h * LN2
        if sampling_mask is not None:
            words = sampling_mask + row.to(tl.int64) * tl.cdiv(V, 32)
        for first in range(begin, whole, BLOCK):
            block = load_block(source + first, places, V, REPEATS, STEP, False)
            if sampling_mask is not None:
                block = sampled(block, words, first, V, REPEATS, LANES, VECTOR)
            for i in tl.static_range(REPEATS):
                z = gradient_tile(block[i], scale, maximum, level, slope, ENTROPY)
                tl.store(sink + first + i * STEP + places, z.to(gradient.dtype.element_ty))
        block = load_block(source + whole, places, end - whole, REPEATS, STEP, True)
        if sampling_mask is not None:
            block = sampled(block, words, whole, V, REPEATS, LANES, VECTOR)
        for i in tl.static_range(REPEATS):
            z = gradient_tile(block[i], scale, maximum, level, slope, ENTROPY)
            tl.store(sink + whole + i * STEP + places, z.to(gradient.dtype.element_ty), mask=i * STEP + places < end - whole)
        if (target >= begin) & (target < end):
            logp = tl.load(logprob + row)
            own = g - tl.exp(logp) * (g + h_entropy + h * tl.maximum(logp, -1000.0))
            if sampling_mask is not None:  # a target that was cut off
                own = tl.where(logp == float("-inf"), 0.0, own)
            # After what another thread wrote there.
            tl.debug_barrier()
            tl.store(sink + target, (own / divisor).to(gradient.dtype.element_ty))
