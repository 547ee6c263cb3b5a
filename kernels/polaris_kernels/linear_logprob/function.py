"""The public, differentiable `linear_logprob`: checks, registration with torch, and the choice between Triton and plain torch.

`polaris_kernels::linear_logprob` and its backward are custom operators with shapes for fake tensors, so torch.compile and
FSDP2 see one operation each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polaris_kernels._ops import add_op_namespace_prefix
from polaris_kernels.checks import check_backward_mode, check_head, check_once, check_plain, check_rows, is_captured, uses_triton
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.chunked import chunked_backward, chunked_forward, rows_to_keep
from polaris_kernels.linear_logprob.parallel import IGNORED, local_targets, name_of, parallel_forward, sum_over_ranks
from polaris_kernels.rows import Rows, live_rows
from polaris_kernels.sampling_mask import check_sampling_mask
from polaris_kernels.tiles import addressable, tiles_for, whole_columns


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    return_entropy: bool = True,
    logits_dtype: torch.dtype | None = None,
    sampling_mask: Tensor | None = None,
    ignore_index: int = -100,
    group: dist.ProcessGroup | None = None,
    main_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target and entropy of each row under softmax(logits / temperature), without the [T, V] logits.

    Args:
        hidden: [T, H] float32, bfloat16, float16 or float64 (plain torch only).
        weight: [V, H] of the same dtype; its gradient is skipped if it needs none.
        targets: [T] integers in [0, V), or `ignore_index`: then both results and all gradients of the row are 0.
        temperature: a number or one per row, [T]; gets no gradient.
        bias: [V] or None, of the same dtype; added to the product.
        softcap: None, or c of logits = c * tanh(logits / c), before the temperature (Gemma 2).
        return_entropy: whether the second result is wanted; False saves no time worth mentioning, but a tensor.
        logits_dtype: None, or the dtype to which an inference engine rounds its logits, so that the same is done here.
        sampling_mask: None, or [T, ceil(V / 32)] int32 from `pack_sampling_mask`: the tokens that a sampler with top-k, top-p or the
            like kept, over which alone the softmax is taken. The log-prob of a target that was cut off is minus infinity.
        group: None, or the ranks among which the head's rows are divided, in their order and not necessarily evenly: `weight` and `bias`
            are then this rank's [V_r, H] and [V_r], and `sampling_mask` that of its columns. Everything else is equal on all ranks: hidden
            states, `targets` in the whole vocabulary, the incoming gradients. So are the results, bit by bit, and the gradient of
            `hidden`, which is complete.
        main_grad: None, or [V, H] float32 (float64 for float64 inputs), contiguous: each backward adds the gradient of `weight` to it,
            without rounding it to the dtype of `weight`, and `weight` itself gets none; a backward for the gradient of `hidden` alone,
            as by torch.autograd.grad, adds it too. With a group these are this rank's rows.

    Returns:
        Log-probs [T] and entropies [T] (or None) in nats, float32 (float64 for float64 inputs), differentiable once with respect
        to `hidden`, `weight` and `bias`. Rows whose incoming gradients are exactly zero cost nothing in the backward.

    Raises:
        ValueError: shapes or dtypes that do not fit, a DTensor, a `main_grad` where `weight` requires no gradient; and, on CPU or with
            POLARIS_KERNELS_DEBUG=1 (on CUDA looking waits for the device), targets outside the vocabulary or a temperature that is
            not positive. Elsewhere the log-prob of such a target is NaN.
    """
    head = Head(weight=weight, bias=bias, softcap=softcap or 0.0, logits_dtype=logits_dtype, main_grad=main_grad)
    check_head(hidden, head)
    check_backward_mode("linear_logprob", hidden, weight, bias)
    temperature = check_rows(hidden, targets, temperature, ignore_index, len(weight) if group is None else None)
    sampling_mask = check_sampling_mask(sampling_mask, len(hidden), len(weight))
    check_plain(hidden=hidden, sampling_mask=sampling_mask)
    ranks = None if group is None else name_of(group)
    if ranks is not None:
        targets, ignore_index = local_targets(hidden, weight, targets, ignore_index, ranks), IGNORED
    if uses_triton(hidden):
        hidden, weight = whole_columns(hidden), whole_columns(weight)
    bias = None if bias is None else bias.contiguous()
    operands = (hidden.contiguous(), weight.contiguous(), targets.long().contiguous(), temperature)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    options = (head.softcap, logits_dtype, ignore_index, return_entropy, keep, ranks, main_grad)
    logprob, entropy, *_ = _forward(*operands, bias, sampling_mask, *options)
    return logprob, entropy if return_entropy else None


@torch.library.custom_op(add_op_namespace_prefix("linear_logprob"), mutates_args=())
def _forward(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: Tensor,
    bias: Tensor | None,
    sampling_mask: Tensor | None,
    softcap: float,
    logits_dtype: torch.dtype | None,
    ignore_index: int,
    with_entropy: bool,
    keep: bool,
    group: str | None = None,
    main_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    head = Head(weight=weight, bias=bias, softcap=softcap, logits_dtype=logits_dtype)
    tiles = None
    if uses_triton(hidden):
        hidden, head = addressable(hidden), replace(head, weight=addressable(weight))
        tiles = tiles_for(hidden, head)
    logits = temperature.new_empty(_rows_to_keep(hidden, weight, keep, group), weight.shape[0])
    if group is not None:
        return *parallel_forward(hidden, head, targets, temperature, with_entropy, group, tiles, sampling_mask), logits
    if tiles is None:
        return *chunked_forward(hidden, head, targets, temperature, ignore_index, with_entropy, sampling_mask, logits), logits
    from polaris_kernels.linear_logprob.tiled import tiled_forward

    return *tiled_forward(hidden, head, targets, temperature, ignore_index, tiles, sampling_mask), logits


@_forward.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: Tensor,
    bias: Tensor | None,
    sampling_mask: Tensor | None,
    softcap: float,
    logits_dtype: torch.dtype | None,
    ignore_index: int,
    with_entropy: bool,
    keep: bool,
    group: str | None = None,
    main_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Shapes, never len(): it would turn a symbolic T into a number, and every other T would be compiled again.
    full = torch.empty_like(temperature)
    entropies = full if with_entropy or uses_triton(hidden) else full.new_empty(0)
    logits = full.new_empty(_rows_to_keep(hidden, weight, keep, group), weight.shape[0])
    return torch.empty_like(full), torch.empty_like(entropies), full.new_empty(2, *full.shape), logits


def _rows_to_keep(hidden: Tensor, weight: Tensor, keep: bool, group: str | None) -> int:
    """Rows whose logits the forward leaves for the backward: on CPU those that fit, elsewhere none, since making them again is cheap."""
    return rows_to_keep(hidden, weight) if keep and group is None and not uses_triton(hidden) else 0


# torch 2.11 leaves out a last argument that has its default, and then does not find the one that is mutated.
@torch.library.custom_op(add_op_namespace_prefix("linear_logprob_backward"), mutates_args=("main_grad",))
def _backward(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: Tensor,
    bias: Tensor | None,
    sampling_mask: Tensor | None,
    softmax: Tensor,
    logits: Tensor,
    logprob: Tensor,
    entropy: Tensor,
    logprob_gradient: Tensor | None,
    entropy_gradient: Tensor | None,
    softcap: float,
    logits_dtype: torch.dtype | None,
    ignore_index: int,
    with_weight: bool,
    group: str | None,
    main_grad: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    head = Head(weight=weight, bias=bias, softcap=softcap, logits_dtype=logits_dtype, main_grad=main_grad)
    live = live_rows((logprob_gradient, entropy_gradient), targets, ignore_index)
    maximum, log_total = softmax
    values = Rows(
        targets=targets,
        temperature=temperature,
        maximum=maximum,
        log_total=log_total,
        logprob=logprob,
        entropy=entropy if len(entropy) else maximum,
        logprob_gradient=torch.zeros_like(temperature) if logprob_gradient is None else logprob_gradient,
        entropy_gradient=entropy_gradient,
        sampling_mask=sampling_mask,
    )
    if is_captured(hidden.device):
        # How many rows are live is not known: those that are not take part with zeros.
        gradient, *others = _gradients(hidden.where(live.unsqueeze(1), 0.0), head, values.only(live), with_weight, group)
    else:
        rows = live.nonzero().squeeze(1)
        compact, *others = _gradients(hidden[rows], head, values[rows], with_weight, group, (logits, rows))
        gradient = torch.zeros_like(hidden).index_copy_(0, rows, compact)
    weight_gradient, bias_gradient = (hidden.new_empty(0) if other is None else other for other in others)
    return gradient, weight_gradient, bias_gradient


def _gradients(
    hidden: Tensor, head: Head, values: Rows, with_weight: bool, group: str | None, known: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of hidden states, weight and bias, by the implementation that serves these hidden states; `known` is that of `chunked_backward`."""
    alone = group is None
    if not uses_triton(hidden) or not len(head.weight):  # a rank may have no rows
        gradient, weight_gradient, bias_gradient = chunked_backward(hidden, head, values, with_weight, rounded=alone, known=known)
    else:
        from polaris_kernels.linear_logprob.tiled import tiled_backward

        hidden, head = addressable(hidden), replace(head, weight=addressable(head.weight))
        gradient, weight_gradient, bias_gradient = tiled_backward(hidden, head, values, with_weight, tiles_for(hidden, head), rounded=alone)
    return gradient if group is None else sum_over_ranks(gradient, group).to(hidden.dtype), weight_gradient, bias_gradient


@_backward.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: Tensor,
    bias: Tensor | None,
    sampling_mask: Tensor | None,
    softmax: Tensor,
    logits: Tensor,
    logprob: Tensor,
    entropy: Tensor,
    logprob_gradient: Tensor | None,
    entropy_gradient: Tensor | None,
    softcap: float,
    logits_dtype: torch.dtype | None,
    ignore_index: int,
    with_weight: bool,
    group: str | None,
    main_grad: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    weight_gradient = torch.empty_like(weight) if with_weight and main_grad is None else hidden.new_empty(0)
    return torch.empty_like(hidden), weight_gradient, hidden.new_empty(0) if bias is None else torch.empty_like(bias)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    hidden, weight, targets, temperature, bias, sampling_mask, ctx.softcap, ctx.logits_dtype, ctx.ignore_index, *rest = inputs
    *_, ctx.group, ctx.main_grad = rest  # not saved: backwards of other calls may change it before this one's
    logprob, entropy, softmax, logits = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(softmax, logits)
    ctx.save_for_backward(hidden, weight, targets, temperature, bias, sampling_mask, softmax, logits, logprob, entropy)


def _differentiate(ctx: Any, logprob_gradient: Tensor | None, entropy_gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    check_once("linear_logprob")
    rest = (None,) * 11
    if logprob_gradient is None and entropy_gradient is None:
        return None, None, *rest
    with_weight = ctx.needs_input_grad[1]
    main_grad = ctx.main_grad if with_weight else None
    options = (ctx.softcap, ctx.logits_dtype, ctx.ignore_index, with_weight, ctx.group, main_grad)
    hidden, weight, bias = _backward(*ctx.saved_tensors, logprob_gradient, entropy_gradient, *options)
    returned = weight if with_weight and main_grad is None else None
    return hidden, returned, None, None, bias if ctx.needs_input_grad[4] else None, *rest[:8]


_forward.register_autograd(_differentiate, setup_context=_setup)
