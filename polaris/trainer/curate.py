"""Graded groups -> rewards, group kinds, and the samples that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polaris.algorithm.advantage import group_advantages
from polaris.algorithm.curation import GroupKinds, classify_groups
from polaris.config.schema import AlgorithmConfig
from polaris.trainer.collect import Graded
from polaris.trainer.packing import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Curated:
    """`rewards`, `advantages` [P, G]; `samples` in prompt order, those of informative groups only."""

    rewards: np.ndarray
    advantages: np.ndarray
    kinds: GroupKinds
    samples: list[Sample]


def curate(groups: Sequence[Sequence[Graded]], config: AlgorithmConfig) -> Curated:
    """Group-relative advantages; groups without variance teach nothing and are left out, named and counted in `kinds`.

    A response whose grading was lost to our own limits takes part in no group.
    """
    rewards = np.array([[graded.verdict.reward for graded in group] for group in groups], dtype=np.float64)
    valid = np.array([[not graded.verdict.lost for graded in group] for group in groups])
    kinds = classify_groups(rewards, valid)
    advantages = group_advantages(rewards, valid, config.advantage_scale)
    samples = [
        Sample(
            prompt_tokens=graded.rollout.prompt_tokens,
            tokens=graded.rollout.tokens,
            logprobs=graded.rollout.logprobs,
            advantage=float(advantages[p, s]),
            temperature=graded.rollout.temperature,
        )
        for p, group in enumerate(groups)
        if kinds.informative[p]
        for s, graded in enumerate(group)
        if valid[p, s]
    ]
    return Curated(rewards=rewards, advantages=advantages, kinds=kinds, samples=samples)
