"""Which groups teach something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polaris.algorithm.advantage import rewards_vary


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKinds:
    """Boolean arrays [P]; every group is of exactly one kind, and only `informative` groups have a gradient."""

    informative: np.ndarray
    """Two valid samples with different rewards."""
    all_wrong: np.ndarray
    """At least two valid samples, all with one reward that is not above 0."""
    all_right: np.ndarray
    """At least two valid samples, all with one reward above 0."""
    too_few: np.ndarray
    """Fewer than two valid samples: nothing to compare with."""


def classify_groups(rewards: np.ndarray, valid: np.ndarray) -> GroupKinds:
    """Kinds of P groups from `rewards` [P, G] float64 and `valid` [P, G] bool."""
    too_few = valid.sum(axis=1) < 2
    informative = rewards_vary(rewards, valid)
    uniform = ~too_few & ~informative
    positive = np.where(valid, rewards, -np.inf).max(axis=1) > 0
    return GroupKinds(informative=informative, all_wrong=uniform & ~positive, all_right=uniform & positive, too_few=too_few)
