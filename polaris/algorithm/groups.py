"""Rewards to a training batch: group-relative advantages, kinds of groups, and copies in the places of those without a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

EPSILON = 1e-6


def group_advantages(rewards: np.ndarray, valid: np.ndarray, scale: Literal["std", "none"]) -> np.ndarray:
    """Reward minus the mean of its group, over the group's standard deviation + 1e-6 if `scale` is "std"; [P, G] float64.

    `rewards` [P, G] float64 and `valid` [P, G] bool: P prompts, G samples each. Mean and standard deviation are those of the
    valid samples, the latter unbiased (n - 1), as in verl; TRL differs only in adding 1e-4. Invalid samples, groups of
    fewer than two valid samples and groups whose valid rewards are all equal get exactly 0.

    "std" is GRPO (DeepSeekMath, Shao et al. 2024), "none" is Dr. GRPO (Liu et al. 2025).
    """
    count = valid.sum(axis=1, keepdims=True)
    kept = np.where(valid, rewards, 0.0)
    centred = np.where(valid, rewards - kept.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    varied = rewards_vary(rewards, valid)[:, None]
    if scale == "std":
        deviation = np.sqrt(np.square(centred).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
        centred = centred / (deviation + EPSILON)
    return np.where(varied & valid, centred, 0.0)


def rewards_vary(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """[P] bool: the group has two valid samples with different rewards."""
    lowest = np.where(valid, rewards, np.inf).min(axis=1)
    highest = np.where(valid, rewards, -np.inf).max(axis=1)
    return highest > lowest


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


def is_scarce(informative: int, places: int, share: float) -> bool:
    """Whether `informative` groups fill less than `share` of a step's `places`."""
    return informative / places < share


def substitute(informative: np.ndarray, places: int, seed: int) -> list[int]:
    """The groups to train on, as indices into `informative` [P] bool, in their order; an index that stands there again is a copy.

    Every informative group is there once, in its own place. If they fill fewer than `places`, copies are added until they do, each
    in the place of a group without a gradient, the first ones first. Copies go round the informative groups in an order that is a
    function of `seed`, so that no group has more than one copy more than another. P must not be below `places`; without an
    informative group there is nothing to copy and the result is empty.
    """
    assert len(informative) >= places
    chosen = np.flatnonzero(informative)
    if not len(chosen):
        return []
    # numpy promises the raw stream of a bit generator across its versions, but not Generator.permutation.
    order = chosen[np.argsort(np.random.Philox(key=seed).random_raw(len(chosen)), kind="stable")]
    copies, left_out = np.split(np.flatnonzero(~informative), [max(0, places - len(chosen))])
    trained = np.arange(len(informative))
    trained[copies] = np.resize(order, len(copies))
    return np.delete(trained, left_out).tolist()
