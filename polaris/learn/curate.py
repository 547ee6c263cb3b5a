"""Graded groups -> rescue -> rewards, advantages -> substitution -> the samples that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polaris.algorithm.advantage import group_advantages
from polaris.algorithm.curation import GroupKinds, classify_groups
from polaris.algorithm.substitution import substitute
from polaris.config.schema import RunConfig
from polaris.data.ledger import Ledger
from polaris.learn.packing import Sample
from polaris.learn.rescue import rescue
from polaris.learn.successes import Successes
from polaris.rollout.seeds import request_seed
from polaris.sampling.collect import Graded
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Curated:
    """P prompts of a step with G responses each, as drawn and as trained on."""

    prompts: Sequence[Prompt]
    drawn: Sequence[list[Graded]]
    """The policy's own responses: what ledger and metrics count."""
    drawn_kinds: GroupKinds
    groups: Sequence[list[Graded]]
    """The same after rescue."""
    rescued: Sequence[Graded]
    """The stored successes that rescue put in."""
    advantages: np.ndarray
    """[P, G], of `groups`."""
    informative: int
    """Groups with a gradient after rescue, before substitution."""
    scarce: bool
    """They are fewer than algorithm.min_informative asks for."""
    trained: Sequence[int]
    """Indices of the groups that are trained on, in order. A copy is its index again, so everything about a group stays together."""
    samples: Sequence[Sample]
    """Their responses."""


def curate(prompts: Sequence[Prompt], drawn: Sequence[list[Graded]], config: RunConfig, successes: Successes, step: int) -> Curated:
    """Which groups a step trains on, and with which advantages. Groups without variance teach nothing and are not among them.

    A response whose grading was lost to our own limits takes part in no group.
    """
    algorithm, places = config.algorithm, config.trainer.prompts_per_step
    drawn_kinds = classify_groups(*_rewards(drawn))
    groups, rescued = rescue(prompts, drawn, drawn_kinds.all_wrong, successes, config.seed, step)
    rewards, valid = _rewards(groups)
    informative = classify_groups(rewards, valid).informative
    advantages = group_advantages(rewards, valid, algorithm.advantage_scale)
    scarce = bool(informative.sum() / places < algorithm.min_informative)
    trained = np.flatnonzero(informative).tolist()
    if algorithm.substitution:
        trained = substitute(informative, places, request_seed(config.seed, "substitution", step, "", 0))
    if scarce and algorithm.scarce == "skip":
        trained = []
    return Curated(
        prompts=prompts,
        drawn=drawn,
        drawn_kinds=drawn_kinds,
        groups=groups,
        rescued=rescued,
        advantages=advantages,
        informative=int(informative.sum()),
        scarce=scarce,
        trained=trained,
        samples=[_sample(groups[p][s], advantages[p, s]) for p in trained for s in np.flatnonzero(valid[p]).tolist()],
    )


def count_verdicts(ledger: Ledger, prompts: Sequence[Prompt], drawn: Sequence[Sequence[Graded]]) -> None:
    """Add every group of a step to the ledger, whether it was trained on or not; lost verdicts count neither way."""
    for prompt, group in zip(prompts, drawn, strict=True):
        kinds = [graded.verdict.kind for graded in group if not graded.verdict.lost]
        ledger.add(prompt.id, kinds.count("correct"), len(kinds))


def _rewards(groups: Sequence[Sequence[Graded]]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [P, G] float64, and [P, G] bool where there is a verdict."""
    rewards = np.array([[graded.verdict.reward for graded in group] for group in groups], dtype=np.float64)
    return rewards, np.array([[not graded.verdict.lost for graded in group] for group in groups])


def _sample(graded: Graded, advantage: float) -> Sample:
    rollout = graded.rollout
    return Sample(
        prompt_tokens=rollout.prompt_tokens,
        tokens=rollout.tokens,
        logprobs=rollout.logprobs,
        advantage=float(advantage),
        temperature=rollout.temperature,
        stored=graded.stored,
    )
