"""Group-relative advantages."""

from __future__ import annotations

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
