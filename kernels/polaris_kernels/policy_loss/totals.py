"""What a policy loss reports besides its value: sums over tokens and maxima, by name."""

SUMS = (
    "tokens",
    "clip_low",
    "clip_high",
    "clip_dual",
    "truncated",
    "masked",
    "nonfinite",
    "kl_k1",
    "kl_k3",
    "gap",
)
"""Counts of tokens; of those where a bound of the ratio acted, or the correction cut, masked or lacked a log-prob; and, over tokens
with a finite engine log-prob, sums of the estimates k1 and k3 of KL(engine || trainer) and of the distance of the two log-probs."""

REFERENCE_SUMS = ("kl_reference_k1", "kl_reference_k3")
"""Only where the batch has reference log-probs: sums over tokens of the estimates k1 and k3 of KL(trained || reference)."""

MAXIMA = ("ratio_max", "gap_max")
"""The largest importance ratio and the largest distance of the two log-probs; minus infinity where there is no token."""
