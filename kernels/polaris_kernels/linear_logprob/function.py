"""The differentiable, public `linear_logprob`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polaris_kernels.linear_logprob.chunked import chunked_backward, chunked_forward


def linear_logprob(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float | Tensor, return_entropy: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target and entropy of each row under softmax(hidden @ weight.T / temperature).

    `hidden` [T, H] and `weight` [V, H] of one dtype, `targets` [T] integers in [0, V), `temperature` a number or [T].
    Returns the log-probabilities [T] and, unless `return_entropy` is false, the entropies [T], both in nats and float32
    (float64 for float64 inputs), differentiable once with respect to `hidden` and `weight`; `temperature` gets no gradient.
    The logits [T, V] never exist. Rows whose incoming gradients are exactly zero cost nothing in the backward pass.

    Raises ValueError for shapes and dtypes that do not fit, a DTensor, and (on CPU, where looking costs nothing) targets
    outside the vocabulary or a temperature that is not positive.
    """
    _check(hidden, weight, targets)
    result_dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    if isinstance(temperature, Tensor) and temperature.shape not in ((), targets.shape):
        raise ValueError(f"temperature has shape {tuple(temperature.shape)}; pass a number or one value per row, [{len(targets)}]")
    temperature = torch.as_tensor(temperature, dtype=result_dtype, device=hidden.device).detach().expand(len(targets))
    _check_values(targets, temperature, len(weight))
    return _LinearLogprob.apply(hidden, weight, targets.long(), temperature, return_entropy)


def _check(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    if hasattr(weight, "full_tensor") or hasattr(hidden, "full_tensor"):
        raise ValueError("linear_logprob takes plain tensors, not DTensor: gather the weight first, for example with weight.full_tensor()")
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or targets.shape != hidden.shape[:1]:
        shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, targets {tuple(targets.shape)}"
        raise ValueError(f"linear_logprob needs hidden [T, H], weight [V, H], targets [T], but got {shapes}")
    if hidden.dtype != weight.dtype or not hidden.is_floating_point():
        raise ValueError(f"hidden is {hidden.dtype} and weight is {weight.dtype}: cast both to one floating-point dtype")


def _check_values(targets: Tensor, temperature: Tensor, vocabulary: int) -> None:
    if targets.is_cuda or not len(targets):
        return
    low, high = targets.aminmax()
    if low < 0 or high >= vocabulary:
        raise ValueError(f"targets span {int(low)} to {int(high)}, outside [0, {vocabulary}): drop such rows before the call")
    if not temperature.min() > 0:
        raise ValueError(f"temperature = {float(temperature.min())} must be above 0")


class _LinearLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: Tensor, return_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        logprob, entropy = chunked_forward(hidden, weight, targets, temperature, return_entropy)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, targets, temperature, entropy)
        return logprob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradients[0] is None and gradients[1] is None:
            return None, None, None, None, None
        hidden_gradient, weight_gradient = chunked_backward(ctx.saved_tensors, *gradients, with_weight=ctx.needs_input_grad[1])
        return hidden_gradient, weight_gradient, None, None, None
