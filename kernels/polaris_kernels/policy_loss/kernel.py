"""The Triton kernel of `policy_loss`: losses, their gradient and all metrics in one launch.

Each program owns a segment of the tokens: a sequence, or a block of SEGMENT tokens where sequences do not matter. The program
that finishes last adds up the segments in their order, so the result does not depend on which one that is.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import tensor

LIMIT = tl.constexpr(20.0)
SLOTS = tl.constexpr(16)


@triton.jit
def clamp(values: tensor, low: tensor, high: tensor) -> tensor:
    """Between the bounds; NaN stays NaN, so that a broken log-prob reaches the loss."""
    return tl.minimum(tl.maximum(values, low, propagate_nan=tl.PropagateNan.ALL), high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def largest(values: tensor) -> tensor:
    """Maximum over the first dimension; NaN where there is one, which `tl.max` would drop."""
    return tl.max(values, 0) + tl.sum(tl.where(values != values, values, 0.0), 0)


@triton.jit
def clipped(ratio: tensor, advantage: tensor, low: tensor, high: tensor) -> tuple[tensor, tensor, tensor, tensor]:
    """-min(r A, clip(r) A), its derivative by log r, and where each bound acted."""
    at_low, at_high = (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)
    loss = -tl.minimum(ratio * advantage, clamp(ratio, low, high) * advantage, propagate_nan=tl.PropagateNan.ALL)
    return loss, tl.where(at_low | at_high, 0.0, -ratio * advantage), at_low, at_high


@triton.jit
def log_ratio(logprob: tensor, proximal: tensor) -> tensor:
    return clamp(logprob - proximal, -LIMIT, LIMIT)


@triton.jit
def load(values: tensor, places: tensor, inside: tensor) -> tensor:
    """In float32, whatever floating-point numbers they are."""
    return tl.load(values + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def in_mask(mask: tensor, places: tensor, inside: tensor, MASK: tl.constexpr) -> tensor:
    """Which of the tokens inside of the segment are trained."""
    if MASK:
        inside = inside & (tl.load(mask + places, mask=inside, other=0) != 0)
    return inside


@triton.jit
def sequence_bounds(lengths: tensor, sequence: tensor, MERGE: tl.constexpr) -> tuple[tensor, tensor]:
    """First token of a sequence, and the first behind it."""
    before = tl.zeros([MERGE], tl.int64)
    for start in range(0, sequence, MERGE):
        places = start + tl.arange(0, MERGE)
        before += tl.load(lengths + places, mask=places < sequence, other=0).to(tl.int64)
    first = tl.sum(before, 0)
    return first, first + tl.load(lengths + sequence).to(tl.int64)


@triton.jit
def sequence_terms(
    logprob: tensor, proximal: tensor, mask: tensor, first: tensor, end: tensor, KIND: tl.constexpr, MASK: tl.constexpr, BLOCK: tl.constexpr
) -> tuple[tensor, tensor]:
    """One over the tokens of a sequence, and for "gspo" the geometric mean of their ratios."""
    count = tl.zeros([BLOCK], tl.float32)
    log_ratios = tl.zeros([BLOCK], tl.float32)
    for start in range(first, end, BLOCK):
        places = start + tl.arange(0, BLOCK)
        inside = in_mask(mask, places, places < end, MASK)
        count += tl.where(inside, 1.0, 0.0)
        if KIND == "gspo":
            log_ratios += load(logprob, places, inside) - load(proximal, places, inside)
    share = 1.0 / tl.maximum(tl.sum(count, 0), 1.0)
    ratio = 1.0
    if KIND == "gspo":
        ratio = tl.exp(log_ratio(tl.sum(log_ratios, 0) * share, 0.0))
    return share, ratio


@triton.jit
def token_loss(
    new: tensor, old: tensor, advantage: tensor, sequence_ratio: tensor, never: tensor, low: tensor, high: tensor, dual_clip: tensor,
    KIND: tl.constexpr, DUAL: tl.constexpr, BLOCK: tl.constexpr,
) -> tuple[tensor, tensor, tensor, tensor, tensor, tensor]:  # fmt: skip
    """Loss, its derivative by the log-prob, the ratio, and where the lower, the upper and the dual bound acted."""
    at_dual = never
    if KIND == "gspo":
        ratio = tl.zeros([BLOCK], tl.float32) + sequence_ratio
        loss, slope, at_low, at_high = clipped(ratio, advantage, low, high)
    elif KIND == "cispo":
        ratio = tl.exp(log_ratio(new, old))
        weight = clamp(ratio, low, high)
        loss, slope, at_low, at_high = -weight * advantage * new, -weight * advantage, ratio < low, ratio > high
    else:
        tl.static_assert(KIND == "dapo" or KIND == "grpo" or KIND == "dr_grpo", "loss_kernel does not know this KIND")
        ratio = tl.exp(log_ratio(new, old))
        loss, slope, at_low, at_high = clipped(ratio, advantage, low, high)
        slope = tl.where(tl.abs(new - old) > LIMIT, 0.0, slope)
        if KIND == "dapo" and DUAL:
            at_dual = (advantage < 0) & (loss > -dual_clip * advantage)
            loss = tl.where(at_dual, -dual_clip * advantage, loss)
            slope = tl.where(at_dual, 0.0, slope)
    return loss, slope, ratio, at_low, at_high, at_dual


@triton.jit
def corrected(
    share: tensor, gap: tensor, nonfinite: tensor, never: tensor, low: tensor, high: tensor, CORRECTION: tl.constexpr
) -> tuple[tensor, tensor, tensor]:
    """`share` times the weight of the way from the engine to the trainer, and where that was truncated and masked."""
    truncated, masked, factor = never, never, share
    if CORRECTION != "off":
        weight = tl.exp(log_ratio(gap, 0.0))
        outside = weight > high
        if CORRECTION == "tis":
            truncated = outside & ~nonfinite
            factor = share * tl.where(nonfinite, 0.0, tl.minimum(weight, high))
        else:
            tl.static_assert(CORRECTION == "mask", "loss_kernel does not know this CORRECTION")
            outside = outside | (weight < low)
            masked = outside & ~nonfinite
            factor = share * tl.where(nonfinite | outside, 0.0, weight)
    return factor, truncated, masked


@triton.jit
def kl_k3(gap: tensor) -> tensor:
    """exp(d) - 1 - d, which cancels for small d, where the series is exact to float32."""
    series = gap * gap * (0.5 + gap * (1.0 / 6 + gap * (1.0 / 24)))
    return tl.where(tl.abs(gap) < 0.02, series, tl.exp(gap) - 1 - gap)


@triton.jit
def merge_segments(
    partials: tensor, loss: tensor, totals: tensor, divisor: tensor, segments: tensor, MERGE: tl.constexpr
) -> None:  # fmt: skip
    """Sums (slots 0 to 10, the loss first) and maxima (11 and 12) over the segments, in their order."""
    slots = tl.arange(0, SLOTS)
    added = tl.zeros([MERGE, SLOTS], tl.float64)
    highest = tl.full([MERGE, SLOTS], float("-inf"), tl.float32)
    for line in range(0, segments, MERGE):
        lines = line + tl.arange(0, MERGE)
        there = (lines < segments)[:, None] & (slots < 13)[None, :]
        # From L2: this processor's L1 need not know what the others wrote.
        values = tl.load(partials + lines[:, None] * SLOTS + slots[None, :], mask=there, other=0.0, cache_modifier=".cg")
        added += values.to(tl.float64)
        highest = tl.maximum(highest, tl.where(there, values, float("-inf")), propagate_nan=tl.PropagateNan.ALL)
    result = tl.where(slots < 11, tl.sum(added, 0), largest(highest).to(tl.float64))
    tl.store(totals + slots - 1, result, mask=(slots > 0) & (slots < 13))
    tl.store(loss, (tl.sum(tl.where(slots == 0, result, 0.0), 0) / divisor).to(tl.float32))


@triton.jit
def loss_kernel(
    logprob: tensor, behaviour: tensor, advantage: tensor, mask: tensor, proximal: tensor, lengths: tensor, denominator: tensor,
    loss_of_all: tensor, totals: tensor, gradient: tensor, partials: tensor, arrived: tensor, T: tensor, segments: tensor,
    clip_low: tensor, clip_high: tensor, dual_clip: tensor, correction_low: tensor, correction_high: tensor,
    KIND: tl.constexpr, DUAL: tl.constexpr, CORRECTION: tl.constexpr, MASK: tl.constexpr, SEQUENCES: tl.constexpr,
    LOADED: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr, MERGE: tl.constexpr,
) -> None:  # fmt: skip
    """The loss over the denominator, its gradient [T], and [12] float64 the sums and maxima of `polaris_kernels.policy_loss.totals`.

    The denominator is a number, or with LOADED in memory. `arrived` counts programs; it is 0 before and after.
    """
    segment = tl.program_id(0)
    if SEQUENCES:
        first, end = sequence_bounds(lengths, segment, MERGE)
    else:
        first, end = segment * SEGMENT, tl.minimum(segment * SEGMENT + SEGMENT, T)
    divisor = tl.load(denominator).to(tl.float32) if LOADED else denominator
    share = 1.0
    sequence_ratio = 1.0
    if KIND == "grpo" or KIND == "gspo":
        share, sequence_ratio = sequence_terms(logprob, proximal, mask, first, end, KIND, MASK, BLOCK)
    losses = tl.zeros([BLOCK], tl.float32)
    tokens = tl.zeros([BLOCK], tl.float32)
    low_clips = tl.zeros([BLOCK], tl.float32)
    high_clips = tl.zeros([BLOCK], tl.float32)
    dual_clips = tl.zeros([BLOCK], tl.float32)
    truncations = tl.zeros([BLOCK], tl.float32)
    maskings = tl.zeros([BLOCK], tl.float32)
    broken = tl.zeros([BLOCK], tl.float32)
    k1 = tl.zeros([BLOCK], tl.float32)
    k3 = tl.zeros([BLOCK], tl.float32)
    distance = tl.zeros([BLOCK], tl.float32)
    largest_ratio = tl.full([BLOCK], float("-inf"), tl.float32)
    largest_gap = tl.full([BLOCK], float("-inf"), tl.float32)
    low, high = 1 - clip_low, 1 + clip_high
    for start in range(first, end, BLOCK):
        places = start + tl.arange(0, BLOCK)
        in_segment = places < end
        inside = in_mask(mask, places, in_segment, MASK)
        new, old = load(logprob, places, inside), load(proximal, places, inside)
        engine, a = load(behaviour, places, inside), load(advantage, places, inside)
        never = places < first
        terms = token_loss(new, old, a, sequence_ratio, never, low, high, dual_clip, KIND, DUAL, BLOCK)
        loss, slope, ratio, at_low, at_high, at_dual = terms
        nonfinite = (engine != engine) | (tl.abs(engine) == float("inf"))
        gap = tl.where(nonfinite, 0.0, old - engine)
        factor, truncated, masked = corrected(share, gap, nonfinite, never, correction_low, correction_high, CORRECTION)
        tl.store(gradient + places, tl.where(inside, factor * slope / divisor, 0.0), mask=in_segment)
        losses += tl.where(inside, factor * loss, 0.0)
        tokens += tl.where(inside, 1.0, 0.0)
        low_clips += tl.where(inside & at_low, 1.0, 0.0)
        high_clips += tl.where(inside & at_high, 1.0, 0.0)
        dual_clips += tl.where(inside & at_dual, 1.0, 0.0)
        truncations += tl.where(inside & truncated, 1.0, 0.0)
        maskings += tl.where(inside & masked, 1.0, 0.0)
        broken += tl.where(inside & nonfinite, 1.0, 0.0)
        k1 += tl.where(inside, -gap, 0.0)
        k3 += tl.where(inside, kl_k3(gap), 0.0)
        distance += tl.where(inside, tl.abs(gap), 0.0)
        largest_ratio = tl.maximum(largest_ratio, tl.where(inside, ratio, float("-inf")), propagate_nan=tl.PropagateNan.ALL)
        largest_gap = tl.maximum(largest_gap, tl.where(inside, tl.abs(gap), float("-inf")), propagate_nan=tl.PropagateNan.ALL)
    row = partials + segment * SLOTS
    tl.store(row, tl.sum(losses, 0))
    tl.store(row + 1, tl.sum(tokens, 0))
    tl.store(row + 2, tl.sum(low_clips, 0))
    tl.store(row + 3, tl.sum(high_clips, 0))
    tl.store(row + 4, tl.sum(dual_clips, 0))
    tl.store(row + 5, tl.sum(truncations, 0))
    tl.store(row + 6, tl.sum(maskings, 0))
    tl.store(row + 7, tl.sum(broken, 0))
    tl.store(row + 8, tl.sum(k1, 0))
    tl.store(row + 9, tl.sum(k3, 0))
    tl.store(row + 10, tl.sum(distance, 0))
    tl.store(row + 11, largest(largest_ratio))
    tl.store(row + 12, largest(largest_gap))
    tl.debug_barrier()
    if tl.atomic_add(arrived, 1, sem="acq_rel") == segments - 1:
        merge_segments(partials, loss_of_all, totals, divisor, segments, MERGE)
        tl.store(arrived, 0)
