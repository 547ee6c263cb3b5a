"""The loss of a pack: corrected token losses over the normaliser of the whole optimizer step.

Legend: R response tokens of the pack, S sequences.
"""

from __future__ import annotations

from math import log2
from typing import Any

import torch
from torch import Tensor

from polaris.config.schema import AlgorithmConfig
from polaris.learn.statistics import Statistics
from polaris_kernels import linear_logprob, linear_policy_loss, policy_loss
from polaris_kernels.policy_loss.registry import LOSSES

CLIPPED = {"policy/clip_low": "clip_low", "policy/clip_high": "clip_high", "policy/clip_dual": "clip_dual"}
MISMATCH = {"masked_fraction": "masked", "truncated_fraction": "truncated", "nonfinite_fraction": "nonfinite"}
MISMATCH_OF_FINITE = {"kl_k1": "kl_k1", "kl_k3": "kl_k3", "logprob_gap_mean": "gap"}


def denominator(loss: str, *, response_tokens: int, sequences: int, max_response_tokens: int) -> float:
    """What the token losses of one optimizer step are divided by; all counts are of the whole step over all ranks."""
    match LOSSES[loss].normaliser:
        case "tokens":
            return float(response_tokens)
        case "sequences":
            return float(sequences)
        case "constant":
            return float(sequences * max_response_tokens)


def gradient_scale(loss: str, *, response_tokens: int, sequences: int) -> float:
    """The power of two by which a step's sum of token losses is multiplied before the backward, so that the average token weighs about 1.

    Losses that are means of sequences divide each token by its sequence's length, which may be 90,000.
    """
    return 2.0 ** round(log2(response_tokens / sequences)) if LOSSES[loss].normaliser == "sequences" else 1.0


def fused_objective(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    sequence_lengths: Tensor,
    config: AlgorithmConfig,
    denominator: float,
    proximal_logprob: Tensor | None = None,
    stored: Tensor | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Statistics]:
    """`policy_objective` of hidden states [R, H] and the head (weight [V, H], `bias` [V], `softcap`): in one operation, but for losses of
    whole sequences."""
    if LOSSES[config.loss].of_sequences:
        logprob, entropy = linear_logprob(hidden, weight, targets, temperature=temperature, bias=bias, softcap=softcap)
        assert entropy is not None
        terms = (entropy.detach(), sequence_lengths, config, denominator, proximal_logprob, stored)
        return policy_objective(logprob, behaviour_logprob, advantage, *terms)
    loss, totals, logprob, entropy = linear_policy_loss(
        hidden,
        weight,
        targets,
        behaviour_logprob,
        advantage,
        None,
        denominator,
        temperature=temperature,
        bias=bias,
        softcap=softcap,
        proximal_logprob=proximal_logprob,
        sequence_lengths=sequence_lengths,
        **_options(config),
    )
    return loss, _statistics(totals, entropy, logprob, behaviour_logprob, proximal_logprob, stored, config)


def policy_objective(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    entropy: Tensor,
    sequence_lengths: Tensor,
    config: AlgorithmConfig,
    denominator: float,
    proximal_logprob: Tensor | None = None,
    stored: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Loss of a pack, a scalar whose sum over packs and ranks is the loss of the step, and the pack's statistics.

    `behaviour_logprob` [R] float32 is the engine's, `entropy` [R] float32 in nats is only recorded, and `denominator` is
    that of the whole step, so neither loss nor gradient depends on how sequences are packed. `sequence_lengths` [S] are
    response tokens; `proximal_logprob` [R] is the trainer's before the step's first update, None in that update. `stored` [R] bool
    tells the tokens of rescuing successes, which older weights sampled; None where there are none.
    """
    assert denominator > 0, "an optimizer step needs at least one response token"
    loss, totals = policy_loss(
        logprob,
        behaviour_logprob,
        advantage,
        None,
        denominator,
        proximal_logprob=proximal_logprob,
        sequence_lengths=sequence_lengths,
        **_options(config),
    )
    return loss, _statistics(totals, entropy, logprob, behaviour_logprob, proximal_logprob, stored, config)


def _options(config: AlgorithmConfig) -> dict[str, Any]:
    return {
        "kind": config.loss,
        "clip_low": config.clip_low,
        "clip_high": config.clip_high,
        "dual_clip": config.dual_clip,
        "correction": config.correction,
        "correction_low": config.correction_low,
        "correction_high": config.correction_high,
    }


@torch.no_grad()
def _statistics(
    totals: dict[str, Tensor],
    entropy: Tensor,
    logprob: Tensor,
    behaviour_logprob: Tensor,
    proximal_logprob: Tensor | None,
    stored: Tensor | None,
    config: AlgorithmConfig,
) -> Statistics:
    """Those of a pack; `totals` are over all of its tokens. The distance of engine and trainer is told apart of fresh samples, which shows
    whether the engine serves the right weights, and of stored ones, which grows with their age."""
    statistics = Statistics()
    if not len(entropy):
        return statistics
    for name, total in CLIPPED.items():
        statistics.add_mean(name, totals[total], totals["tokens"])
    statistics.add_mean("policy/entropy", entropy.double().sum(), len(entropy))
    statistics.add_max("policy/ratio_max", totals["ratio_max"])
    if stored is None:
        _add_mismatch(statistics, "mismatch", totals)
        return statistics
    proximal = logprob if proximal_logprob is None else proximal_logprob
    options = _options(config) | {"kind": "dapo"}  # the distance does not depend on the loss, and dapo's needs no whole sequences
    for prefix, rows in (("mismatch", ~stored), ("rescue", stored)):
        tokens = (proximal[rows], behaviour_logprob[rows], torch.zeros_like(logprob[rows]))
        _add_mismatch(statistics, prefix, policy_loss(*tokens, None, 1.0, **options)[1])
    return statistics


def _add_mismatch(statistics: Statistics, prefix: str, totals: dict[str, Tensor]) -> None:
    for name, total in MISMATCH.items():
        statistics.add_mean(f"{prefix}/{name}", totals[total], totals["tokens"])
    for name, total in MISMATCH_OF_FINITE.items():
        statistics.add_mean(f"{prefix}/{name}", totals[total], totals["tokens"] - totals["nonfinite"])
    statistics.add_max(f"{prefix}/logprob_gap_max", totals["gap_max"])
