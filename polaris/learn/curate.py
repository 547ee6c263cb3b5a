"""Groups -> rescue -> rewards, advantages -> substitution -> the training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polaris.algorithm.groups import GroupKinds, classify_groups, group_advantages, is_scarce, substitute
from polaris.config.schema import RunConfig
from polaris.learn.packing import TrainingSample
from polaris.learn.rescue import rescue
from polaris.learn.success_buffer import SuccessBuffer
from polaris.rollout.types import request_seed
from polaris.types import Group, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """P groups of a step with G rollouts each, as drawn and as trained on.

    Example: four groups have the rewards 1111, 1000, 0000 and 0110. The second and the fourth are informative, so `trained` is [1, 3], or
    [1, 1, 3, 3] with substitution, and `samples` are the rollouts of these groups.
    """

    drawn: Sequence[Group]
    """What the policy itself has answered: what pass rates and metrics count."""
    drawn_kinds: GroupKinds
    groups: Sequence[Group]
    """The same after rescue."""
    rescued: Sequence[ScoredRollout]
    """The stored successes that rescue put in."""
    advantages: np.ndarray
    """[P, G], of `groups`."""
    informative: int
    """Groups with a gradient after rescue, before substitution."""
    scarce: bool
    """They are fewer than algorithm.min_informative asks for."""
    trained: Sequence[int]
    """Indices of the groups that are trained on, in order; substitution repeats an index."""
    samples: Sequence[TrainingSample]
    """Their rollouts."""


def curate(drawn: Sequence[Group], config: RunConfig, successes: SuccessBuffer, step: int) -> TrainingBatch:
    """Which groups a step trains on, and with which advantages. Groups without variance have no gradient and are not among them.

    A response whose grading was lost to our own limits takes part in no group.
    """
    algorithm, places = config.algorithm, config.trainer.prompts_per_step
    drawn_kinds = classify_groups(*_rewards(drawn))
    groups, rescued = rescue(drawn, drawn_kinds.all_wrong, successes, config.seed, step)
    rewards, valid = _rewards(groups)
    informative = classify_groups(rewards, valid).informative
    advantages = group_advantages(rewards, valid, algorithm.advantage_scale)
    scarce = is_scarce(int(informative.sum()), places, algorithm.min_informative)
    trained = np.flatnonzero(informative).tolist()
    if algorithm.substitution:
        trained = substitute(informative, places, request_seed(config.seed, "substitution", step, "", 0))
    if scarce and algorithm.scarce == "skip":
        trained = []
    return TrainingBatch(
        drawn=drawn,
        drawn_kinds=drawn_kinds,
        groups=groups,
        rescued=rescued,
        advantages=advantages,
        informative=int(informative.sum()),
        scarce=scarce,
        trained=trained,
        samples=[_sample(groups[p], s, advantages[p, s]) for p in trained for s in np.flatnonzero(valid[p]).tolist()],
    )


def _rewards(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [P, G] float64, and [P, G] bool where there is a verdict."""
    verdicts = [[scored.verdict for scored in group.rollouts] for group in groups]
    rewards = np.array([[verdict.reward for verdict in row] for row in verdicts], dtype=np.float64)
    return rewards, np.array([[not verdict.lost for verdict in row] for row in verdicts])


def _sample(group: Group, s: int, advantage: float) -> TrainingSample:
    scored = group.rollouts[s]
    return TrainingSample(prompt_tokens=group.prompt.tokens, rollout=scored.rollout, advantage=float(advantage), stored=scored.stored)
