"""The public, differentiable `policy_loss`, and the same of a `TokenBatch`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from polaris_kernels.checks import INTEGERS, check_plain, may_look, uses_triton
from polaris_kernels.policy_loss.correction import of_sequences
from polaris_kernels.policy_loss.reference import policy_loss_reference
from polaris_kernels.policy_loss.registry import kernel_knows, loss_of
from polaris_kernels.policy_loss.settings import CorrectionKind, Kind, PolicyLoss, PolicyLossSettings
from polaris_kernels.policy_loss.totals import MAXIMA, SUMS
from polaris_kernels.token_batch import TokenBatch

_PER_TOKEN = ("behaviour_logprob", "advantage", "mask", "proximal_logprob", "reference_logprob", "weight")


def policy_loss(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor | None,
    denominator: float | Tensor,
    *,
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
    weight: Tensor | None = None,
    sequence_lengths: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss of packed tokens and its metrics.

    Args:
        logprob: [T] float32, of the policy that is trained; requires grad.
        behaviour_logprob: [T] float32, of the engine that sampled the tokens, which may differ from any trainer's.
        advantage: [T] float32.
        mask: [T] bool, the tokens to train on, or None for all.
        denominator: what the sum of token losses is divided by: the tokens ("dapo", "cispo"), the sequences ("grpo", "gspo") or
            sequences times the longest response ("dr_grpo") of the whole optimizer step over all ranks, so that nothing depends
            on how the step is split. This function never counts by itself.
        kind: "dapo" (clipped ratio, dual clip), "grpo" (clipped ratio, mean of each sequence), "dr_grpo" (clipped ratio),
            "gspo" (one ratio per sequence), "cispo" (clipped, constant weight). One file each in this folder; or a `PolicyLoss` of
            your own, whose token losses are computed in torch on every device.
        clip_low, clip_high: the ratio's bounds are 1 - clip_low and 1 + clip_high.
        dual_clip: bound of the ratio where the advantage is negative ("dapo" only); 0 is off.
        correction, correction_low, correction_high: weight of a token for the way from the engine to the proximal policy:
            "off", "tis", "mask", or of whole sequences "sequence_tis", "sequence_mask", "geometric_mask"; None for the kind's own
            bounds; see `polaris_kernels.policy_loss.correction`.
        kl: coefficient of k3, an estimate of KL(trained || reference), added to each token's loss; 0 is off.
        proximal_logprob: [T] float32, of the trainer before the step's first update; None in that first update, where it is
            `logprob` itself and every ratio is 1.
            Like the engine's log-probs and the advantages it is a constant: no gradient reaches it.
        reference_logprob: [T] float32, of a frozen reference policy; `kl` needs it.
        weight: [T] float32, factor of each token's loss in place of the share of its sequence that "grpo" and "gspo" give it.
        sequence_lengths: [S] integers, tokens of each sequence, side by side in T; losses and corrections of sequences need it.

    Returns:
        The loss, a scalar that is differentiable once with respect to `logprob`, and scalars by name: sums over the tokens of
        the mask and maxima (`polaris_kernels.policy_loss.totals`). Divide sums by "tokens" of all packs and ranks.

    Raises:
        ValueError: shapes, dtypes or settings that do not fit; on CPU or with POLARIS_KERNELS_DEBUG=1 also lengths that do not add up.
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
        behaviour_logprob=behaviour_logprob,
        advantage=advantage,
        mask=mask,
        proximal_logprob=proximal_logprob,
        reference_logprob=reference_logprob,
        weight=weight,
        sequence_lengths=sequence_lengths,
    )
    return policy_loss_of_batch(logprob, batch, settings, denominator)


def policy_loss_of_batch(
    logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings, denominator: float | Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """`policy_loss` of values that already travel as a batch and settings, as in Polaris' own trainer.

    The flat `policy_loss` is for other trainers, whose code has tensors at hand and none of these types.
    """
    check_tokens(logprob, batch, settings, denominator)
    if uses_triton(logprob) and kernel_knows(settings, batch):
        from polaris_kernels.policy_loss.tiled import TiledPolicyLoss, tiled_forward

        with torch.no_grad():
            loss, totals, gradient = tiled_forward(logprob, batch, settings, denominator)
            metrics = dict(zip(SUMS + MAXIMA, totals.unbind(), strict=True))
        return TiledPolicyLoss.apply(logprob, loss, gradient), metrics
    constants = ("behaviour_logprob", "advantage", "proximal_logprob", "reference_logprob", "weight")
    given = {name: values for name in constants if (values := getattr(batch, name)) is not None}
    batch = replace(batch, **{name: values.detach().to(logprob.dtype) for name, values in given.items()})
    total, metrics = policy_loss_reference(logprob, batch, settings)
    return total / denominator, metrics


def check_tokens(logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings, denominator: float | Tensor) -> None:
    """Raise ValueError for tokens that do not fit each other or the settings."""
    if logprob.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logprob is {logprob.dtype}, in which a ratio has no digits; pass float32, for example from linear_logprob")
    if logprob.ndim != 1:
        raise ValueError(f"logprob has shape {tuple(logprob.shape)}; pass packed tokens [T], as logprob.flatten() and all else")
    others = {name: getattr(batch, name) for name in _PER_TOKEN}
    check_plain(logprob=logprob, **others, sequence_lengths=batch.sequence_lengths)
    for name, values in others.items():
        if values is not None and values.shape != logprob.shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}; pass one value per token, [{len(logprob)}]")
    if denominator.ndim if isinstance(denominator, Tensor) else not denominator > 0:
        raise ValueError(f"denominator = {denominator} must be one number above 0: the tokens or sequences of the whole optimizer step")
    if batch.mask is not None and batch.mask.dtype != torch.bool:
        raise ValueError(f"mask is {batch.mask.dtype}; pass bool, for example mask.bool()")
    if settings.kl and batch.reference_logprob is None:
        raise ValueError(f"kl = {settings.kl} needs reference_logprob [T], of the frozen reference policy")
    loss = loss_of(settings)
    needing = {
        f'kind = "{loss.name}"': loss.of_sequences or (loss.aggregate == "sequence" and batch.weight is None),
        f'correction = "{settings.correction}"': of_sequences(settings),
    }
    for name, needs in needing.items():
        if needs and batch.sequence_lengths is None:
            raise ValueError(f"{name} needs sequence_lengths [S], the tokens of each sequence")
    if batch.sequence_lengths is not None:
        _check_sequences(batch.sequence_lengths, len(logprob))


def _check_sequences(lengths: Tensor, tokens: int) -> None:
    if lengths.ndim != 1 or lengths.dtype not in INTEGERS:
        raise ValueError(f"sequence_lengths are {lengths.dtype} {tuple(lengths.shape)}; pass one integer per sequence, [S]")
    if not may_look(lengths):
        return
    # Torch writes beyond its buffer where these do not hold.
    if lengths.lt(0).any():
        raise ValueError(f"sequence_lengths hold {int(lengths.min())}; pass the tokens of each sequence, 0 or more")
    if int(lengths.sum()) != tokens:
        raise ValueError(f"sequence_lengths sum to {int(lengths.sum())}, but there are {tokens} tokens: pass one length for each sequence")
