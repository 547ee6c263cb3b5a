"""How the token losses of an update are averaged: each sample's weight, the divisor, and the scale that half precision wants.

Everything is counted over the samples of the whole update, which every rank has; so nothing depends on packs or ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Literal, assert_never

from polaris.config.algorithm import AlgorithmConfig
from polaris.learn.objective import loss_of_config
from polaris.learn.packing import TrainingSample

Aggregate = Literal["token", "sequence", "prompt", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What an update holds, over all ranks. `prompts` are its groups: a copy of a group counts once more."""

    response_tokens: int
    sequences: int
    prompts: int
    max_response_tokens: int


def aggregate_of(config: AlgorithmConfig) -> Aggregate:
    """`algorithm.aggregate`, or the loss's own."""
    return config.aggregate or loss_of_config(config).aggregate


def count(samples: Sequence[TrainingSample], max_response_tokens: int) -> Counts:
    """Of the samples of one update."""
    return Counts(
        response_tokens=sum(len(sample.chosen) for sample in samples),
        sequences=len(samples),
        prompts=len({sample.group for sample in samples}),
        max_response_tokens=max_response_tokens,
    )


def weighted(samples: Sequence[TrainingSample], config: AlgorithmConfig, shared: bool = False) -> list[TrainingSample]:
    """The samples of one update, with the weight of each one's tokens where that is not the loss's own, or where ranks have `shared`
    sequences, whose length is then not seen in a rank's part.

    "token" and "constant": 1. "sequence" (GRPO): 1 over the sample's tokens. "prompt" (ScaleRL, Khatri et al. 2025): 1 over the tokens
    of all of the prompt's samples.
    """
    kind = aggregate_of(config)
    of_sequences = loss_of_config(config).aggregate == "sequence"
    if kind != "prompt" and of_sequences == (kind == "sequence") and not (shared and of_sequences):
        return list(samples)
    tokens = Counter[int]()
    for sample in samples:
        tokens[sample.group] += len(sample.chosen)
    lengths = {"token": lambda s: 1, "constant": lambda s: 1, "sequence": lambda s: len(s.chosen), "prompt": lambda s: tokens[s.group]}
    return [replace(sample, weight=1 / max(1, lengths[kind](sample))) for sample in samples]


def denominator(kind: Aggregate, counts: Counts) -> float:
    """The divisor of the weighted token losses of one update."""
    match kind:
        case "token":
            return float(counts.response_tokens)
        case "sequence":
            return float(counts.sequences)
        case "prompt":
            return float(counts.prompts)
        case "constant":
            return float(counts.sequences * counts.max_response_tokens)
        case _:
            assert_never(kind)


def gradient_scale(kind: Aggregate, counts: Counts) -> float:
    """A power of two. The sum of token losses is multiplied by it before the backward, so that the average token weighs about 1.

    Means over sequences or prompts divide each token by a length, which may be 90,000 and more.
    """
    parts = {"sequence": counts.sequences, "prompt": counts.prompts}.get(kind, counts.response_tokens)
    return 2.0 ** round(log2(max(1, counts.response_tokens) / max(1, parts)))  # responses may be empty
