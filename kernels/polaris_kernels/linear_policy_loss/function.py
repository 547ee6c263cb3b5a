"""The public `linear_policy_loss`: the gradient is worked out in the forward, while a chunk's softmax is at hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polaris_kernels.checks import as_it_is, check_backward_mode, check_head, check_once, check_plain, check_rows, uses_triton
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import linear_logprob
from polaris_kernels.linear_policy_loss import chunked
from polaris_kernels.linear_policy_loss.call import Call
from polaris_kernels.policy_loss.correction import of_sequences
from polaris_kernels.policy_loss.function import check_tokens, policy_loss_of_batch
from polaris_kernels.policy_loss.registry import kernel_knows, loss_of
from polaris_kernels.policy_loss.settings import CorrectionKind, Kind, PolicyLoss, PolicyLossSettings
from polaris_kernels.ranges import kept_times
from polaris_kernels.sampling_mask import check_sampling_mask
from polaris_kernels.tiles import whole_columns
from polaris_kernels.token_batch import TokenBatch


def linear_policy_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor | None,
    denominator: float | Tensor,
    *,
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    logits_dtype: torch.dtype | None = None,
    kind: Kind | PolicyLoss = "dapo",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float = 3.0,
    correction: CorrectionKind = "off",
    correction_low: float | None = None,
    correction_high: float | None = None,
    kl: float = 0.0,
    proximal_logprob: Tensor | None = None,
    reference_logprob: Tensor | None = None,
    token_weight: Tensor | None = None,
    sampling_mask: Tensor | None = None,
    sequence_lengths: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    main_grad: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """`policy_loss` of the log-probs of `linear_logprob`, in three products of [T, H] and [V, H] instead of four.

    Since the gradient of each log-prob is known as soon as the log-prob is, a chunk of tokens is taken from hidden states to
    gradients in one go. That works for losses of single tokens. "gspo" and corrections of sequences need a whole sequence's log-probs
    first, and a head that is divided among the ranks of a `group` the other ranks' numbers: both are computed by the two operations
    instead, with a warning; call them yourself to be rid of it. An entropy bonus needs the two operations as well.

    Args:
        hidden, weight, targets, temperature, bias, softcap, logits_dtype, sampling_mask, group, main_grad: see `linear_logprob`. With a
            group all is equal on all its ranks but weight, bias and main_grad, and so are the results.
        token_weight: the `weight` of `policy_loss`.
        behaviour_logprob, advantage, mask, denominator and the rest: see `policy_loss`. Targets of -100 are outside of the mask.

    Returns:
        The loss, a scalar that is differentiable once with respect to `hidden`, `weight` and `bias`; the totals of `policy_loss`;
        log-probs [T] and entropies [T] without gradient, 0 where the mask is False. Tokens outside of the mask cost nothing,
        tokens without advantage one product (with a built-in loss and without `kl`).

    Raises:
        ValueError: as the two operations.
    """
    settings = PolicyLossSettings(
        kind=kind,
        clip_low=clip_low,
        clip_high=clip_high,
        dual_clip=dual_clip,
        correction=correction,
        correction_low=correction_low,
        correction_high=correction_high,
        kl=kl,
    )
    batch = TokenBatch(
        targets=targets,
        temperature=temperature,
        behaviour_logprob=behaviour_logprob,
        advantage=advantage,
        mask=mask,
        proximal_logprob=proximal_logprob,
        reference_logprob=reference_logprob,
        weight=token_weight,
        sampling_mask=sampling_mask,
        sequence_lengths=sequence_lengths,
    )
    head = Head(weight=weight, bias=bias, softcap=softcap or 0.0, logits_dtype=logits_dtype, group=group, main_grad=main_grad)
    if _needs_two_operations(head, settings):
        name = f'kind = "{loss_of(settings).name}", correction = "{correction}" is a loss of whole sequences'
        reason = name if group is None else "the head is divided among ranks"
        warnings.warn(f"{reason}: computed by linear_logprob and policy_loss instead", stacklevel=2)
    return linear_policy_loss_of_batch(hidden, head, batch, settings, denominator)


def linear_policy_loss_of_batch(
    hidden: Tensor, head: Head, batch: TokenBatch, settings: PolicyLossSettings, denominator: float | Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """`linear_policy_loss` of values that already travel as a head, a batch and settings, as in Polaris' own trainer.

    The flat `linear_policy_loss` is for other trainers, whose code has tensors at hand and none of these types. What needs the
    two operations is computed by them without a warning.
    """
    if torch.compiler.is_compiling():
        # The function that calls it then runs as it is; with fullgraph this is what its user reads.
        raise RuntimeError("linear_policy_loss takes rows by the values of mask and advantage: compile around it, without fullgraph")
    return as_it_is(_computed)(hidden, head, batch, settings, denominator)


def _computed(
    hidden: Tensor, head: Head, batch: TokenBatch, settings: PolicyLossSettings, denominator: float | Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    targets = batch.targets
    if targets is None:
        raise ValueError("the batch has no targets, whose log-probs linear_policy_loss computes: pass one integer per row, [T]")
    check_head(hidden, head)
    check_backward_mode("linear_policy_loss", hidden, head.weight, head.bias)
    temperature = check_rows(hidden, targets, batch.temperature, -100, len(head.weight) if head.group is None else None)
    # The log-probs to be have the shape, dtype and device of the temperature.
    check_tokens(temperature, batch, settings, denominator)
    trained = targets != -100 if batch.mask is None else batch.mask & (targets != -100)
    sampling_mask = check_sampling_mask(batch.sampling_mask, len(hidden), len(head.weight))
    check_plain(hidden=hidden, sampling_mask=sampling_mask)
    batch = replace(batch, mask=trained, temperature=temperature, sampling_mask=sampling_mask)
    if _needs_two_operations(head, settings):
        logprob, entropy = _score(hidden, head, targets.masked_fill(~trained, -100), temperature, sampling_mask)
        loss, totals = policy_loss_of_batch(logprob, batch, settings, denominator)
        return loss, totals, logprob.detach(), entropy.detach()
    hidden, head = _laid_out(hidden, head)
    learning = trained if torch.is_grad_enabled() else torch.zeros_like(trained)
    if not isinstance(settings.kind, PolicyLoss) and not settings.kl:
        learning = learning & (batch.advantage != 0)  # those losses are 0 where the advantage is
    if settings.kind == "grpo" and kernel_knows(settings, batch):
        # A share of a sequence's mean is the same loss at a share of the advantage.
        batch, settings = replace(batch, advantage=batch.advantage / _sequence_tokens(batch)), replace(settings, kind="dr_grpo")
    elif loss_of(settings).aggregate == "sequence" and batch.weight is None:
        batch = replace(batch, weight=1 / _sequence_tokens(batch).to(temperature.dtype))
    call = Call(
        targets=targets.long(),
        temperature=temperature,
        trained=trained,
        learning=learning,
        batch=replace(batch, mask=None, sequence_lengths=None),
        settings=settings,
        denominator=denominator,
    )
    loss, logprob, entropy, totals = _LinearPolicyLoss.apply(hidden, head.weight, head.bias, head, call)
    return loss, totals, logprob, entropy


def _needs_two_operations(head: Head, settings: PolicyLossSettings) -> bool:
    return head.group is not None or loss_of(settings).of_sequences or of_sequences(settings)


def _laid_out(hidden: Tensor, head: Head) -> tuple[Tensor, Head]:
    """Both as products and kernels read them."""
    weight = head.weight
    if uses_triton(hidden):
        hidden, weight = whole_columns(hidden), whole_columns(weight)
    return hidden.contiguous(), replace(head, weight=weight.contiguous(), bias=None if head.bias is None else head.bias.contiguous())


def _score(hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, sampling_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [T] by `linear_logprob`."""
    options: dict[str, Any] = {
        "sampling_mask": sampling_mask,
        "bias": head.bias,
        "softcap": head.softcap or None,
        "logits_dtype": head.logits_dtype,
        "group": head.group,
        "main_grad": head.main_grad,
    }
    logprob, entropy = linear_logprob(hidden, head.weight, targets, temperature=temperature, **options)
    assert entropy is not None
    return logprob, entropy


def _sequence_tokens(batch: TokenBatch) -> Tensor:
    """[T] tokens of the mask in the sequence of each token."""
    assert batch.mask is not None
    lengths, owner = batch.sequences()
    return torch.zeros_like(lengths).index_add_(0, owner, batch.mask.to(lengths.dtype)).clamp_(min=1)[owner]


class _LinearPolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, call: Call
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        logprob, entropy = torch.zeros_like(call.temperature), torch.zeros_like(call.temperature)
        rest = (call.trained & ~call.learning).nonzero().squeeze(1)
        others = call.targets[rest], call.temperature[rest], call.sampling_mask(rest)
        logprob[rest], entropy[rest] = _score(hidden[rest], replace(head, main_grad=None), *others)
        learn, ctx.gradients = _implementation(hidden)
        ctx.head, ctx.call = head, call
        ctx.save_for_backward(*learn(hidden, head, call, logprob, entropy, ctx.needs_input_grad[1:3]))
        rows = call.trained.nonzero().squeeze(1)
        loss, totals = call.loss(logprob[rows], rows)
        ctx.mark_non_differentiable(logprob, entropy)
        return loss, logprob, entropy, totals

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        check_once("linear_policy_loss")
        found = ctx.gradients(ctx.saved_tensors, ctx.head, ctx.call, loss_gradient, ctx.needs_input_grad[1])
        return *(gradient if needed else None for gradient, needed in zip(found, ctx.needs_input_grad, strict=False)), None, None


def _implementation(hidden: Tensor) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What serves these hidden states: a `learn`, and what makes gradients of hidden, weight and bias from the tensors that it leaves."""
    if not uses_triton(hidden):
        return chunked.learn, chunked.gradients
    from polaris_kernels.linear_policy_loss import tiled

    return tiled.learn, handed_out


def handed_out(saved: tuple[Tensor | None, ...], head: Head, call: Call, factor: Tensor, with_weight: bool) -> tuple[Tensor | None, ...]:
    """Gradients that wait as `to_keep` keeps them, and their scales, times that of the loss; that of the weight is added to `main_grad`."""
    weight, scale, main_grad = saved[1], saved[4], head.main_grad
    if main_grad is not None:
        if weight is not None and with_weight:
            main_grad.addcmul_(weight[:, : main_grad.shape[1]], factor if scale is None else factor / scale)
        saved = (saved[0], None, *saved[2:])
    pairs = zip(saved[:3], saved[3:], strict=True)
    return tuple(None if g is None else kept_times(g, scale, factor) for g, scale in pairs)
