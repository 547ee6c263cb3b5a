"""Groups -> rescue -> rewards, advantages -> substitution -> the training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polaris.algorithm.advantages import advantages
from polaris.algorithm.groups import GroupKinds, classify_groups, is_scarce, substitute
from polaris.config.algorithm import AlgorithmConfig
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
    counted: np.ndarray
    """[P, G] bool, the samples of `groups` behind the advantages: graded ones of groups with a gradient."""
    advantages: np.ndarray
    """[P, G], of `groups`; 0 where not counted."""
    kl: np.ndarray | None = None
    """[P, G] nats from a reference that the rewards behind the advantages are less, times algorithm.kl_coefficient; None without one."""
    informative: int
    """Groups with a gradient after rescue, before substitution."""
    scarce: bool
    """They are fewer than algorithm.min_informative asks for."""
    trained: Sequence[int]
    """Indices of the groups that are trained on, in order; substitution repeats an index."""
    version: int
    """That of the weights that are trained. Tokens of older ones are stale."""
    samples: Sequence[TrainingSample]
    """Their rollouts, without those that algorithm.truncated = "mask" leaves out."""


def curate(drawn: Sequence[Group], config: RunConfig, successes: SuccessBuffer, step: int, version: int | None = None) -> TrainingBatch:
    """Which groups a step trains on, and with which advantages. Groups without variance have no gradient and are not among them.

    `version` is that of the weights that are trained, by default of those that have drawn the last of the groups' tokens.
    A response whose grading was lost to our own limits takes part in no group.
    """
    algorithm, places = config.algorithm, config.trainer.prompts_per_step
    version = _newest_version(drawn) if version is None else version
    drawn_kinds = _kinds(drawn, algorithm)
    groups, rescued = rescue(drawn, drawn_kinds.all_wrong, successes, config.seed, step)
    valid, learned = _valid(groups), _learned(groups, algorithm)
    informative = _informative(groups, algorithm)
    counted = valid & informative[:, None]
    found = advantages(algorithm.advantage, algorithm.advantage_scale, _rewards(groups, algorithm), counted)
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
        counted=counted,
        advantages=found,
        informative=int(informative.sum()),
        scarce=scarce,
        trained=trained,
        version=version,
        samples=_samples(groups, trained, learned, found, version),
    )


def teaching(drawn: Sequence[Group], config: RunConfig, successes: SuccessBuffer, step: int) -> np.ndarray:
    """[P] bool: which groups `curate` finds a gradient in, after rescue."""
    groups, _ = rescue(drawn, _kinds(drawn, config.algorithm).all_wrong, successes, config.seed, step)
    return _informative(groups, config.algorithm)


def with_kl(batch: TrainingBatch, kl: np.ndarray, algorithm: AlgorithmConfig) -> TrainingBatch:
    """The batch with advantages of rewards less `kl` [N] nats of each of the counted samples, times algorithm.kl_coefficient.

    The groups stay: KL, which differs between any two responses, makes no group informative.
    """
    of_samples = np.zeros(batch.counted.shape)
    of_samples[batch.counted] = kl
    rewards = _rewards(batch.groups, algorithm) - algorithm.kl_coefficient * of_samples
    found = advantages(algorithm.advantage, algorithm.advantage_scale, rewards, batch.counted)
    samples = _samples(batch.groups, batch.trained, _learned(batch.groups, algorithm), found, batch.version)
    return replace(batch, kl=of_samples, advantages=found, samples=samples)


def counted_samples(batch: TrainingBatch) -> list[TrainingSample]:
    """The N samples behind the advantages, in the order of `batch.counted`; each once, copies of its group aside."""
    return [_sample(batch.groups[p], s, batch.advantages[p, s], p, batch.version) for p, s in np.argwhere(batch.counted).tolist()]


def _samples(groups: Sequence[Group], trained: Sequence[int], learned: np.ndarray, found: np.ndarray, version: int) -> list[TrainingSample]:
    """A copy of a group has a place of its own."""
    places = [(place, p, s) for place, p in enumerate(trained) for s in np.flatnonzero(learned[p]).tolist()]
    return [_sample(groups[p], s, found[p, s], place, version) for place, p, s in places]


def _newest_version(groups: Sequence[Group]) -> int:
    """That of the weights which have drawn the last of the groups' tokens."""
    return max(int(scored.rollout.versions[-1]) for group in groups for scored in group.rollouts)


def _kinds(groups: Sequence[Group], algorithm: AlgorithmConfig) -> GroupKinds:
    solved = np.array([[scored.verdict.kind == "correct" for scored in group.rollouts] for group in groups])
    return classify_groups(_rewards(groups, algorithm), solved, _valid(groups))


def _informative(groups: Sequence[Group], algorithm: AlgorithmConfig) -> np.ndarray:
    """[P] bool: rewards differ, and some response is trained on."""
    return _kinds(groups, algorithm).informative & _learned(groups, algorithm).any(axis=1)


def _rewards(groups: Sequence[Group], algorithm: AlgorithmConfig) -> np.ndarray:
    """[P, G] float64: what each response earns, less the penalty of a truncated one."""
    rewards = np.array([[scored.verdict.reward for scored in group.rollouts] for group in groups], dtype=np.float64)
    return rewards - algorithm.truncation_penalty * _truncated(groups) if algorithm.truncated == "penalise" else rewards


def _learned(groups: Sequence[Group], algorithm: AlgorithmConfig) -> np.ndarray:
    """[P, G] bool: the responses whose tokens are trained on where their group is."""
    return _valid(groups) & ~_truncated(groups) if algorithm.truncated == "mask" else _valid(groups)


def _valid(groups: Sequence[Group]) -> np.ndarray:
    """[P, G] bool: there is a verdict."""
    return np.array([[not scored.verdict.lost for scored in group.rollouts] for group in groups])


def _truncated(groups: Sequence[Group]) -> np.ndarray:
    """[P, G] bool: cut off at the longest length."""
    return np.array([[scored.rollout.finish_reason == "length" for scored in group.rollouts] for group in groups])


def _sample(group: Group, s: int, advantage: float, place: int, version: int) -> TrainingSample:
    scored = group.rollouts[s]
    return TrainingSample(
        prompt_tokens=group.prompt.tokens,
        rollout=scored.rollout,
        advantage=float(advantage),
        group=place,
        version=version,
        stored=scored.stored,
    )
