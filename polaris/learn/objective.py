"""The loss of a pack: corrected token losses over the normaliser of the whole optimizer step.

Legend: R response tokens of the pack, S sequences, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import cast

import torch
from torch import Tensor

from polaris.config.algorithm import AlgorithmConfig
from polaris.doors import calling, is_own, load, short
from polaris.errors import Refused, RunFailed
from polaris.learn.packing import Pack
from polaris.learn.statistics import Statistics
from polaris_kernels import (
    Head,
    PolicyLoss,
    PolicyLossSettings,
    TokenBatch,
    TokenLoss,
    linear_logprob,
    linear_policy_loss_of_batch,
    policy_loss_of_batch,
)
from polaris_kernels.policy_loss.correction import of_sequences
from polaris_kernels.policy_loss.registry import LOSSES, loss_of
from polaris_kernels.policy_loss.settings import Kind

KEY = "algorithm.loss"
NOTHING_APART: Mapping[str, Tensor] = {}


@cache
def own_loss(name: str) -> PolicyLoss:
    """The loss behind `module:name`, a `PolicyLoss` or a function of (batch, settings), as it is when the run starts.

    Raises:
        Refused: if there is none, or it is neither.
    """
    found = load(name, KEY)
    if not isinstance(found, PolicyLoss):
        if not callable(found) or isinstance(found, type):
            raise Refused(f"{KEY} = {short(name)!r} is neither a function of (batch, settings) nor a PolicyLoss")
        found = PolicyLoss(name=short(name), token_loss=found)

    def token_loss(batch: TokenBatch, settings: PolicyLossSettings) -> TokenLoss | Tensor:
        with calling(name, KEY, "the function"):
            return found.token_loss(batch, settings)

    return replace(found, token_loss=token_loss)


def check_loss(config: AlgorithmConfig) -> None:
    """Try a loss of the user's own on three tokens of two sequences, with what a run gives it.

    Raises:
        Refused: it is not there, is neither a function nor a `PolicyLoss`, raises, or gives something else than one term per token.
    """
    if not is_own(config.loss):
        return
    own_loss.cache_clear()
    hidden = torch.eye(3, requires_grad=True)
    values = hidden.detach().log_softmax(-1).diagonal()
    batch = TokenBatch(
        targets=torch.arange(3),
        behaviour_logprob=values - 0.1,
        advantage=torch.tensor([1.0, 1.0, -1.0]),
        reference_logprob=values if config.kl == "k3" else None,
        sequence_lengths=torch.tensor([2, 1]),
    )
    try:
        linear_policy_loss_of_batch(hidden, Head(weight=torch.eye(3)), batch, policy_loss_settings(config), 1.0)
    except (RunFailed, ValueError) as error:
        raise Refused(f"{KEY} = {short(config.loss)!r}, tried on three tokens: {error}") from error


def loss_of_config(config: AlgorithmConfig) -> PolicyLoss:
    """The loss that the configuration names."""
    return own_loss(config.loss) if is_own(config.loss) else LOSSES[config.loss]


def policy_loss_settings(config: AlgorithmConfig) -> PolicyLossSettings:
    """The settings of the loss, from the configuration."""
    return PolicyLossSettings(
        kind=own_loss(config.loss) if is_own(config.loss) else cast(Kind, config.loss),
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=0.0 if config.dual_clip == "off" else config.dual_clip,
        correction=config.correction,
        correction_low=config.correction_low,
        correction_high=config.correction_high,
        kl=config.kl_coefficient if config.kl == "k3" else 0.0,
    )


def pack_objective(
    hidden: Tensor, head: Head, temperature: Tensor, pack: Pack, settings: PolicyLossSettings, denominator: float | Tensor
) -> tuple[Tensor, Statistics]:
    """`policy_objective` of a pack, or of this rank's part of it: the sum over the ranks that share it is that of the whole.

    `hidden` [R, H] are the states of `pack.rows`, and `temperature` [R] those of their softmax. A loss that looks at whole sequences gets
    the log-probs of all ranks, and differentiates its own ones.
    """
    if pack.layout.ranks.size == 1 or not (loss_of(settings).of_sequences or of_sequences(settings)):
        return policy_objective(hidden, head, replace(pack.own_batch, temperature=temperature), settings, denominator, pack.own_apart)
    targets = pack.own_batch.targets
    assert targets is not None
    found = linear_logprob(hidden, head.weight, targets, temperature=temperature, bias=head.bias, softcap=head.softcap or None)
    logprob, entropy = (pack.whole(values) for values in found if values is not None)
    loss, totals = policy_loss_of_batch(logprob, pack.batch, settings, denominator)
    if pack.layout.ranks.rank:
        return loss - loss.detach(), Statistics()
    totals |= {"entropy": entropy.double().sum()}
    return loss, pack_statistics(totals, logprob.detach(), pack.batch, settings, pack.apart)


def policy_objective(
    hidden: Tensor,
    head: Head,
    batch: TokenBatch,
    settings: PolicyLossSettings,
    denominator: float | Tensor,
    apart: Mapping[str, Tensor] = NOTHING_APART,
) -> tuple[Tensor, Statistics]:
    """Loss of a pack, a scalar whose sum over packs and ranks is the loss of the step, and the pack's statistics.

    `hidden` [R, H] are the states that predict the batch's R targets. `denominator` is that of the whole step, so neither loss nor
    gradient depends on how sequences are packed. `apart` [R] bool marks, by the prefix of their metrics, the tokens that older weights have
    sampled: "rescue" those of stored successes, "stale" those of responses that were carried over.
    """
    loss, totals, logprob, entropy = linear_policy_loss_of_batch(hidden, head, batch, settings, denominator)
    return loss, pack_statistics(totals | {"entropy": entropy.double().sum()}, logprob, batch, settings, apart)


@torch.no_grad()
def pack_statistics(
    totals: dict[str, Tensor],
    logprob: Tensor,
    batch: TokenBatch,
    settings: PolicyLossSettings,
    apart: Mapping[str, Tensor] = NOTHING_APART,
) -> Statistics:
    """Metrics of a pack of log-probs [R]; `totals` are sums over all of its tokens, "entropy" among them.

    The distance between engine and trainer has metrics of its own for tokens that are `apart`: that of fresh ones shows whether the
    engine serves the right weights, that of others grows with their age.
    """
    statistics = Statistics()
    if not len(logprob):
        return statistics
    statistics.add_totals("policy", totals)
    if not apart:
        statistics.add_totals("mismatch", totals)
        return statistics
    settings = replace(settings, kind="dapo", kl=0.0)  # the distance does not depend on the loss, and dapo's needs no whole sequences
    fresh = ~torch.stack([*apart.values()]).any(dim=0)
    for group, rows in (("mismatch", fresh), *apart.items()):
        statistics.add_totals(group, policy_loss_of_batch(logprob[rows], batch[rows], settings, 1.0)[1])
    return statistics
