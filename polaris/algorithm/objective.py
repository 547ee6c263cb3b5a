"""The loss of a pack: corrected token losses over the normaliser of the whole optimizer step.

Legend: R response tokens of the pack.
"""

from __future__ import annotations

from torch import Tensor

from polaris.algorithm.correction import Correction, importance_correction
from polaris.algorithm.losses import LOSSES, LossInput, PolicyLoss, TokenLoss
from polaris.algorithm.metrics import Statistics
from polaris.config.schema import AlgorithmConfig


def denominator(loss: PolicyLoss, *, response_tokens: int, sequences: int, max_response_tokens: int) -> float:
    """What the token losses of one optimizer step are divided by; all counts are of the whole step over all ranks."""
    match loss.normaliser:
        case "tokens":
            return float(response_tokens)
        case "sequences":
            return float(sequences)
        case "constant":
            return float(sequences * max_response_tokens)


def policy_objective(
    batch: LossInput, behaviour_logprob: Tensor, entropy: Tensor, config: AlgorithmConfig, denominator: float
) -> tuple[Tensor, Statistics]:
    """Loss of a pack, a scalar whose sum over packs and ranks is the loss of the step, and the pack's statistics.

    `behaviour_logprob` [R] float32 is the engine's, `entropy` [R] float32 in nats is only recorded, and `denominator` is
    that of the whole step, so neither loss nor gradient depends on how sequences are packed.
    """
    assert denominator > 0, "an optimizer step needs at least one response token"
    correction = importance_correction(batch.old_logprob, behaviour_logprob, config)
    token_loss = LOSSES[config.loss].token_loss(batch, config)
    loss = (correction.weight * token_loss.loss).sum() / denominator
    return loss, _statistics(batch, behaviour_logprob, entropy, token_loss, correction)


def _statistics(batch: LossInput, behaviour_logprob: Tensor, entropy: Tensor, token_loss: TokenLoss, correction: Correction) -> Statistics:
    """KL(engine || trainer) estimated on the engine's own samples (Schulman, "Approximating KL divergence").

    With the gap d = old_logprob - behaviour_logprob: k1 = -d (unbiased, may be negative), k3 = exp(d) - 1 - d.
    """
    statistics = Statistics()
    tokens = len(batch.logprob)
    if not tokens:
        return statistics
    shares = {
        "policy/clip_low": token_loss.clip_low,
        "policy/clip_high": token_loss.clip_high,
        "policy/clip_dual": token_loss.clip_dual,
        "policy/entropy": entropy,
        "mismatch/masked_fraction": correction.masked,
        "mismatch/truncated_fraction": correction.truncated,
        "mismatch/nonfinite_fraction": correction.nonfinite,
    }
    for name, values in shares.items():
        statistics.add_mean(name, values.double().sum(), tokens)
    statistics.add_max("policy/ratio_max", token_loss.ratio.max())
    gap = (batch.old_logprob.double() - behaviour_logprob.double()).masked_fill(correction.nonfinite, 0.0)
    finite = (~correction.nonfinite).sum()
    statistics.add_mean("mismatch/kl_k1", -gap.sum(), finite)
    statistics.add_mean("mismatch/kl_k3", (gap.expm1() - gap).sum(), finite)
    statistics.add_mean("mismatch/logprob_gap_mean", gap.abs().sum(), finite)
    statistics.add_max("mismatch/logprob_gap_max", gap.abs().max())
    return statistics
