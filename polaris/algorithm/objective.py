"""The loss of a pack: corrected token losses over the normaliser of the whole optimizer step.

Legend: R response tokens of the pack, S sequences.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from polaris.algorithm.metrics import Statistics
from polaris.config.schema import AlgorithmConfig
from polaris_kernels import linear_logprob, linear_policy_loss, policy_loss
from polaris_kernels.policy_loss.registry import LOSSES

SHARES_OF_TOKENS = {
    "policy/clip_low": "clip_low",
    "policy/clip_high": "clip_high",
    "policy/clip_dual": "clip_dual",
    "mismatch/masked_fraction": "masked",
    "mismatch/truncated_fraction": "truncated",
    "mismatch/nonfinite_fraction": "nonfinite",
}
MEANS_OF_FINITE = {"mismatch/kl_k1": "kl_k1", "mismatch/kl_k3": "kl_k3", "mismatch/logprob_gap_mean": "gap"}


def denominator(loss: str, *, response_tokens: int, sequences: int, max_response_tokens: int) -> float:
    """What the token losses of one optimizer step are divided by; all counts are of the whole step over all ranks."""
    match LOSSES[loss].normaliser:
        case "tokens":
            return float(response_tokens)
        case "sequences":
            return float(sequences)
        case "constant":
            return float(sequences * max_response_tokens)


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
) -> tuple[Tensor, Statistics]:
    """`policy_objective` of hidden states [R, H] and the head [V, H]: in one operation, but for losses of whole sequences."""
    if LOSSES[config.loss].of_sequences:
        logprob, entropy = linear_logprob(hidden, weight, targets, temperature=temperature)
        assert entropy is not None
        terms = (entropy.detach(), sequence_lengths, config, denominator, proximal_logprob)
        return policy_objective(logprob, behaviour_logprob, advantage, *terms)
    loss, totals, _, entropy = linear_policy_loss(
        hidden,
        weight,
        targets,
        behaviour_logprob,
        advantage,
        None,
        denominator,
        temperature=temperature,
        proximal_logprob=proximal_logprob,
        sequence_lengths=sequence_lengths,
        **_options(config),
    )
    return loss, _statistics(totals, entropy)


def policy_objective(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    advantage: Tensor,
    entropy: Tensor,
    sequence_lengths: Tensor,
    config: AlgorithmConfig,
    denominator: float,
    proximal_logprob: Tensor | None = None,
) -> tuple[Tensor, Statistics]:
    """Loss of a pack, a scalar whose sum over packs and ranks is the loss of the step, and the pack's statistics.

    `behaviour_logprob` [R] float32 is the engine's, `entropy` [R] float32 in nats is only recorded, and `denominator` is
    that of the whole step, so neither loss nor gradient depends on how sequences are packed. `sequence_lengths` [S] are
    response tokens; `proximal_logprob` [R] is the trainer's before the step's first update, None in that update.
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
    return loss, _statistics(totals, entropy)


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


def _statistics(totals: dict[str, Tensor], entropy: Tensor) -> Statistics:
    statistics = Statistics()
    if not len(entropy):
        return statistics
    for name, total in SHARES_OF_TOKENS.items():
        statistics.add_mean(name, totals[total], totals["tokens"])
    for name, total in MEANS_OF_FINITE.items():
        statistics.add_mean(name, totals[total], totals["tokens"] - totals["nonfinite"])
    statistics.add_mean("policy/entropy", entropy.double().sum(), len(entropy))
    statistics.add_max("policy/ratio_max", totals["ratio_max"])
    statistics.add_max("mismatch/logprob_gap_max", totals["gap_max"])
    return statistics
