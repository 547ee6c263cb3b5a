"""The loss of a pack: corrected token losses over the normaliser of the whole optimizer step.

Legend: R response tokens of the pack, S sequences, H hidden size.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2

import torch
from torch import Tensor

from polaris.config.algorithm import AlgorithmConfig
from polaris.learn.statistics import Statistics
from polaris_kernels import Head, PolicyLossSettings, TokenBatch, linear_policy_loss_of_batch, policy_loss_of_batch
from polaris_kernels.policy_loss.registry import LOSSES


def policy_loss_settings(config: AlgorithmConfig) -> PolicyLossSettings:
    """The settings of the loss, from the configuration."""
    return PolicyLossSettings(
        kind=config.loss,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=0.0 if config.dual_clip == "off" else config.dual_clip,
        correction=config.correction,
        correction_low=config.correction_low,
        correction_high=config.correction_high,
    )


def denominator(loss: str, *, response_tokens: int, sequences: int, max_response_tokens: int) -> float:
    """The divisor of the token losses of one update; the counts are those of the whole update over all ranks."""
    match LOSSES[loss].normaliser:
        case "tokens":
            return float(response_tokens)
        case "sequences":
            return float(sequences)
        case "constant":
            return float(sequences * max_response_tokens)


def gradient_scale(loss: str, *, response_tokens: int, sequences: int) -> float:
    """A power of two. The sum of token losses is multiplied by it before the backward, so that the average token weighs about 1.

    Losses that are means over sequences divide each token by the length of its sequence, which may be 90,000.
    """
    return 2.0 ** round(log2(response_tokens / sequences)) if LOSSES[loss].normaliser == "sequences" else 1.0


def policy_objective(
    hidden: Tensor,
    head: Head,
    batch: TokenBatch,
    settings: PolicyLossSettings,
    denominator: float | Tensor,
    stored: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Loss of a pack, a scalar whose sum over packs and ranks is the loss of the step, and the pack's statistics.

    `hidden` [R, H] are the states that predict the batch's R targets. `denominator` is that of the whole step, so neither loss nor
    gradient depends on how sequences are packed. `stored` [R] bool marks the tokens of stored successes, which older weights sampled; None
    if there are none.
    """
    loss, totals, logprob, entropy = linear_policy_loss_of_batch(hidden, head, batch, settings, denominator)
    return loss, pack_statistics(totals | {"entropy": entropy.double().sum()}, logprob, batch, settings, stored)


@torch.no_grad()
def pack_statistics(
    totals: dict[str, Tensor], logprob: Tensor, batch: TokenBatch, settings: PolicyLossSettings, stored: Tensor | None = None
) -> Statistics:
    """Metrics of a pack of log-probs [R]; `totals` are sums over all of its tokens, "entropy" among them.

    The distance between engine and trainer has two metrics: that of fresh samples shows whether the engine serves the right weights, that
    of stored ones grows with their age.
    """
    statistics = Statistics()
    if not len(logprob):
        return statistics
    statistics.add_totals("policy", totals)
    if stored is None:
        statistics.add_totals("mismatch", totals)
        return statistics
    settings = replace(settings, kind="dapo")  # the distance does not depend on the loss, and dapo's needs no whole sequences
    for group, rows in (("mismatch", ~stored), ("rescue", stored)):
        statistics.add_totals(group, policy_loss_of_batch(logprob[rows], batch[rows], settings, 1.0)[1])
    return statistics
