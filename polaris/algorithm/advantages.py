"""Rewards to advantages: what `algorithm.advantage` names, of Polaris's own and of the user's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np

from polaris.config.algorithm import ADVANTAGES
from polaris.doors import calling, check_call, load, short
from polaris.errors import Refused, RunFailed

KEY = "algorithm.advantage"
EPSILON = 1e-6

Advantage = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(rewards [P, G] float64, valid [P, G] bool) -> advantages [P, G] float64, 0 where not valid: P prompts, G samples each."""


def advantages(name: str, scale: Literal["std", "none"], rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Advantages [P, G] float64 of `rewards` [P, G] float64, exactly 0 where `valid` [P, G] bool is False.

    Valid are the samples that count: graded ones, in groups with a gradient. The others have no influence.

    Raises:
        RunFailed: a function of the user's own raises, or returns something else than such advantages.
    """
    match name:
        case "group":
            return group_advantages(rewards, valid, scale)
        case "batch":
            return batch_advantages(rewards, valid)
        case "rloo":
            return rloo_advantages(rewards, valid)
    with calling(name, KEY, "the function"):
        found = np.asarray(_own(name)(rewards.copy(), valid.copy()), dtype=np.float64)
    if fault := _fault(found, valid):
        raise RunFailed(f"{KEY} = {short(name)!r} returned {fault}; mend it, and the same command goes on")
    return found


def check_advantage(name: str, prompts: int, samples: int) -> None:
    """Try a function of the user's own on rewards of 0 and 1 of a step's shape.

    Raises:
        Refused: it is not there, takes other arguments, raises, or returns something else than advantages.
    """
    if name in ADVANTAGES:
        return
    _own.cache_clear()
    function = _own(name)
    if not callable(function):
        raise Refused(f"{KEY} = {short(name)!r} is no function; write {short(name).rpartition(':')[2]}(rewards, valid)")
    check_call(function, f"{KEY} = {short(name)!r} is called with (rewards, valid), but it has ", "rewards", "valid")
    valid = np.ones((prompts, samples), dtype=bool)
    valid[0, 0] = valid[-1] = False
    try:
        advantages(name, "none", np.indices(valid.shape).sum(axis=0) % 2 * 1.0, valid)
    except RunFailed as error:
        raise Refused(f"tried on rewards of 0 and 1, {error}") from error


@cache
def _own(name: str) -> Advantage:
    """As it is when the run starts: what is edited later belongs to the next start, which says so."""
    return load(name, KEY)


def _fault(found: np.ndarray, valid: np.ndarray) -> str:
    if found.shape != valid.shape:
        return f"shape {list(found.shape)} for rewards of shape {list(valid.shape)}"
    if not np.isfinite(found).all():
        return "values that are not finite"
    return "other advantages than 0 where valid is False" if found[~valid].any() else ""


def group_advantages(rewards: np.ndarray, valid: np.ndarray, scale: Literal["std", "none"]) -> np.ndarray:
    """Reward minus the mean of its group, over the group's standard deviation + 1e-6 if `scale` is "std"; [P, G] float64.

    Mean and standard deviation are those of the valid samples, the latter unbiased (n - 1), as in verl; TRL differs only in adding 1e-4.
    Groups whose valid rewards are all equal get exactly 0.

    "std" is GRPO (DeepSeekMath, Shao et al. 2024), "none" is Dr. GRPO (Liu et al. 2025).
    """
    centred = _centred(rewards, valid)
    if scale == "std":
        count = valid.sum(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
        centred = centred / (deviation + EPSILON)
    return centred


def batch_advantages(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Reward minus the mean of its group, over the standard deviation + 1e-6 of all these differences; [P, G] float64.

    All are those of the valid samples of the whole batch, whose mean is 0; the deviation is unbiased (n - 1). ScaleRL (Khatri et al. 2025,
    arXiv 2510.13786), which leaves groups without variance out too; REINFORCE++-baseline in verl weighs each by its tokens instead. TRL's
    `scale_rewards="batch"` takes the deviation of the rewards themselves, groups without variance among them, which is larger.
    """
    centred = _centred(rewards, valid)
    return centred / (np.sqrt(np.square(centred).sum() / max(1, valid.sum() - 1)) + EPSILON)


def rloo_advantages(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Reward minus the mean of the group's other valid samples; [P, G] float64. RLOO (Ahmadian et al. 2024, arXiv 2402.14740).

    This is n / (n - 1) times the reward minus the mean of all n.
    """
    count = valid.sum(axis=1, keepdims=True)
    return _centred(rewards, valid) * (count / np.maximum(count - 1, 1))


def _centred(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Reward minus its group's mean [P, G]; exactly 0 where not valid, and where the valid rewards of a group are all equal."""
    mean = np.where(valid, rewards, 0.0).sum(axis=1, keepdims=True) / np.maximum(valid.sum(axis=1, keepdims=True), 1)
    return np.where(valid & rewards_vary(rewards, valid)[:, None], rewards - mean, 0.0)


def rewards_vary(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """[P] bool: the group has two valid samples with different rewards."""
    lowest = np.where(valid, rewards, np.inf).min(axis=1)
    highest = np.where(valid, rewards, -np.inf).max(axis=1)
    return highest > lowest
