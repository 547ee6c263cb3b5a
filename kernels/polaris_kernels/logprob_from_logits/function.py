"""The public, differentiable `logprob_from_logits`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polaris_kernels._ops import add_op_namespace_prefix
from polaris_kernels.checks import DTYPES, check_backward_mode, check_once, check_plain, check_rows, uses_triton
from polaris_kernels.logprob_from_logits.chunked import chunked_backward, chunked_forward
from polaris_kernels.rows import Rows
from polaris_kernels.sampling_mask import check_sampling_mask


def logprob_from_logits(
    logits: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    return_entropy: bool = True,
    inplace_backward: bool = False,
    sampling_mask: Tensor | None = None,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target and entropy of each row under softmax(logits / temperature), in one read of the logits.

    Args:
        logits: [T, V] float32, bfloat16, float16 or float64 (plain torch only); rows may be strided; any other layout is copied.
        targets: [T] integers in [0, V), or `ignore_index`: then both results and the gradient of the row are 0.
        temperature: a number or one per row, [T]; gets no gradient.
        return_entropy: whether the second result is wanted.
        inplace_backward: write the gradient over the logits, which nothing else may then need. Saves their size in memory.
        sampling_mask: None, or [T, ceil(V / 32)] int32 from `pack_sampling_mask`: the tokens that a sampler with top-k, top-p or the
            like kept. The softmax is over these alone; the log-prob of a target that was cut off is minus infinity. Gets no gradient.

    Returns:
        Log-probs [T] and entropies [T] (or None) in nats, float32 (float64 for float64 inputs), differentiable once with respect
        to `logits`. The gradient is worked out in float32 and rounded once to their dtype: for float16 logits scale the loss.

    Raises:
        ValueError: shapes or dtypes that do not fit; and, on CPU or with POLARIS_KERNELS_DEBUG=1, targets outside the
            vocabulary or a temperature that is not positive. Elsewhere the log-prob of such a target is NaN.
    """
    check_plain(logits=logits, sampling_mask=sampling_mask)
    if logits.ndim != 2 or logits.dtype not in DTYPES:
        dtypes = ", ".join(str(dtype) for dtype in DTYPES)
        raise ValueError(
            f"logits are {logits.dtype} {tuple(logits.shape)}; pass a floating-point tensor ({dtypes}) [T, V], as logits.flatten(0, 1)"
        )
    check_backward_mode("logprob_from_logits", logits)
    # The gradient has the strides of the logits, so rows must not share memory, as those of an expanded tensor do.
    if logits.stride(1) != 1 or (len(logits) > 1 and logits.stride(0) < logits.shape[1]):
        if inplace_backward:
            raise ValueError("inplace_backward needs logits whose rows are contiguous and apart; pass logits.contiguous()")
        logits = logits.contiguous()
    sampling_mask = check_sampling_mask(sampling_mask, *logits.shape)
    temperature = check_rows(logits, targets, temperature, ignore_index, logits.shape[1])
    logprob, entropy, _ = _forward(logits, targets.long().contiguous(), temperature, sampling_mask, ignore_index, inplace_backward)
    return logprob, entropy if return_entropy else None


@torch.library.custom_op(add_op_namespace_prefix("logprob_from_logits"), mutates_args=())
def _forward(
    logits: Tensor, targets: Tensor, temperature: Tensor, sampling_mask: Tensor | None, ignore_index: int, inplace: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if uses_triton(logits):
        from polaris_kernels.logprob_from_logits.tiled import tiled_forward

        return tiled_forward(logits, targets, temperature, ignore_index, sampling_mask=sampling_mask)
    return chunked_forward(logits, targets, temperature, ignore_index, sampling_mask)


@_forward.register_fake
def _(
    logits: Tensor, targets: Tensor, temperature: Tensor, sampling_mask: Tensor | None, ignore_index: int, inplace: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(temperature), torch.empty_like(temperature), temperature.new_empty(2, *temperature.shape)


@torch.library.custom_op(add_op_namespace_prefix("logprob_from_logits_backward"), mutates_args=("gradient",))
def _backward(
    logits: Tensor | None,
    gradient: Tensor,
    targets: Tensor,
    temperature: Tensor,
    sampling_mask: Tensor | None,
    softmax: Tensor,
    logprob: Tensor,
    entropy: Tensor,
    logprob_gradient: Tensor | None,
    entropy_gradient: Tensor | None,
    ignore_index: int,
) -> None:
    """Gradient of `logits` into `gradient`; without `logits` it holds them and they are replaced."""
    logits = gradient if logits is None else logits
    values = Rows(
        targets=targets,
        temperature=temperature,
        maximum=softmax[0],
        log_total=softmax[1],
        logprob=logprob,
        entropy=entropy,
        logprob_gradient=torch.zeros_like(temperature) if logprob_gradient is None else logprob_gradient.contiguous(),
        entropy_gradient=None if entropy_gradient is None else entropy_gradient.contiguous(),
        sampling_mask=sampling_mask,
    )
    if uses_triton(logits):
        from polaris_kernels.logprob_from_logits.tiled import tiled_backward

        tiled_backward(logits, gradient, values, ignore_index)
    else:
        chunked_backward(logits, gradient, values, ignore_index)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, targets, temperature, sampling_mask, ctx.ignore_index, ctx.inplace = inputs
    logprob, entropy, softmax = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(softmax)
    ctx.save_for_backward(logits, targets, temperature, sampling_mask, softmax, logprob, entropy)


def _differentiate(ctx: Any, logprob_gradient: Tensor | None, entropy_gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    check_once("logprob_from_logits")
    if logprob_gradient is None and entropy_gradient is None:
        return None, None, None, None, None, None
    logits, *row = ctx.saved_tensors
    # Strides are kept, so that a row-strided view is written as it is read.
    gradient = (
        logits.detach() if ctx.inplace else torch.empty_strided(logits.shape, logits.stride(), dtype=logits.dtype, device=logits.device)
    )
    _backward(None if ctx.inplace else logits, gradient, *row, logprob_gradient, entropy_gradient, ctx.ignore_index)
    return gradient, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup)
