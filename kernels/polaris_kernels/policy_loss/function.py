"""The public, differentiable `policy_loss`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polaris_kernels.checks import INTEGERS, check_plain, may_look, uses_triton
from polaris_kernels.policy_loss.base import LossInput
from polaris_kernels.policy_loss.reference import policy_loss_reference
from polaris_kernels.policy_loss.settings import CorrectionKind, Kind, PolicyLossSettings
from polaris_kernels.policy_loss.totals import MAXIMA, SUMS


def policy_loss(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor | None,
    denominator: float | Tensor,
    *,
    kind: Kind = "dapo",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float = 3.0,
    correction: CorrectionKind = "off",
    correction_low: float = 0.5,
    correction_high: float = 2.0,
    proximal_logprob: Tensor | None = None,
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
            "gspo" (one ratio per sequence), "cispo" (clipped, constant weight). One file each in this folder.
        clip_low, clip_high: the ratio's bounds are 1 - clip_low and 1 + clip_high.
        dual_clip: bound of the ratio where the advantage is negative ("dapo" only); 0 is off.
        correction, correction_low, correction_high: weight of a token for the way from the engine to the proximal policy:
            "off", "tis" or "mask"; see `polaris_kernels.policy_loss.correction`.
        proximal_logprob: [T] float32, of the trainer before the step's first update; None in that first update, where it is
            `logprob` itself and every ratio is 1.
            Like the engine's log-probs and the advantages it is a constant: no gradient reaches it.
        sequence_lengths: [S] integers, tokens of each sequence, side by side in T; "grpo" and "gspo" need it.

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
    )
    check_tokens(logprob, behaviour_logprob, advantage, mask, denominator, proximal_logprob, sequence_lengths, settings)
    proximal = logprob if proximal_logprob is None else proximal_logprob
    behaviour_logprob, advantage, proximal = (v.detach().to(logprob.dtype) for v in (behaviour_logprob, advantage, proximal))
    if uses_triton(logprob):
        from polaris_kernels.policy_loss.tiled import TiledPolicyLoss

        mask = None if mask is None else mask.contiguous()
        tokens = (logprob.contiguous(), behaviour_logprob.contiguous(), advantage.contiguous(), mask, proximal.contiguous())
        total, totals = TiledPolicyLoss.apply(*tokens, sequence_lengths, settings)
        metrics = dict(zip(SUMS + MAXIMA, totals[1:].unbind(), strict=True))
    else:
        batch, behaviour_logprob = _packed(logprob, behaviour_logprob, advantage, mask, proximal, sequence_lengths)
        total, metrics = policy_loss_reference(batch, behaviour_logprob, settings)
    return total / denominator, metrics


def _packed(
    logprob: Tensor, behaviour_logprob: Tensor, advantage: Tensor, mask: Tensor | None, proximal: Tensor, lengths: Tensor | None
) -> tuple[LossInput, Tensor]:
    """The tokens of the mask, and how many of them each sequence has."""
    if lengths is None:
        lengths = torch.tensor([len(logprob)], device=logprob.device)
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=logprob.device), lengths, output_size=len(logprob))
    if mask is not None:
        logprob, behaviour_logprob, advantage, proximal, sequence = (
            values[mask] for values in (logprob, behaviour_logprob, advantage, proximal, sequence)
        )
        lengths = torch.bincount(sequence, minlength=len(lengths))
    batch = LossInput(logprob=logprob, old_logprob=proximal, advantage=advantage, sequence=sequence, sequence_lengths=lengths)
    return batch, behaviour_logprob


def check_tokens(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor | None,
    denominator: float | Tensor,
    proximal_logprob: Tensor | None,
    sequence_lengths: Tensor | None,
    settings: PolicyLossSettings,
) -> None:
    """Raise ValueError for tokens that do not fit each other or the settings."""
    if logprob.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logprob is {logprob.dtype}, in which a ratio has no digits; pass float32, for example from linear_logprob")
    if logprob.ndim != 1:
        raise ValueError(f"logprob has shape {tuple(logprob.shape)}; pass packed tokens [T], for example logprob[mask]")
    others: dict[str, Any] = {
        "behaviour_logprob": behaviour_logprob,
        "advantage": advantage,
        "mask": mask,
        "proximal_logprob": proximal_logprob,
    }
    check_plain(logprob=logprob, **others, sequence_lengths=sequence_lengths)
    for name, values in others.items():
        if values is not None and values.shape != logprob.shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}; pass one value per token, [{len(logprob)}]")
    if denominator.ndim if isinstance(denominator, Tensor) else not denominator > 0:
        raise ValueError(f"denominator = {denominator} must be one number above 0: the tokens or sequences of the whole optimizer step")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}; pass bool, for example mask.bool()")
    if settings.kind in ("grpo", "gspo") and sequence_lengths is None:
        raise ValueError(f'kind = "{settings.kind}" needs sequence_lengths [S], the tokens of each sequence')
    if sequence_lengths is not None:
        _check_sequences(sequence_lengths, len(logprob))


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
