"""After a weight sync: does the engine sample from the policy that the trainer holds? A few short responses answer.

The engine draws them, and the mean distance of its log-probs from the trainer's on the same tokens is the gap. What gap is right depends
on dtype, engine and model, so it is measured: at start, engine and trainer have each read the base model from its folder, each by its own
code, and the gap between the two is the yardstick of all later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polaris.config.schema import SyncConfig
from polaris.errors import RunFailed
from polaris.rollout.types import Engine, RolloutRequest, Sampling, request_seed
from polaris.types import Prompt, Rollout

RESPONSES, MOST_TOKENS = 8, 32
BASE_TOLERANCE = {"float32": 3e-4, "bfloat16": 0.25, "float16": 0.25}
"""Largest gap in nats at start: beyond it, the two stacks compute different functions."""
ROUNDING = {"float32": 3e-6, "bfloat16": 1e-3, "float16": 2e-4}
"""A gap in nats that rounding alone explains whatever the yardstick is, which may be near 0 where the base model is sure of its tokens."""


class WeightSyncError(RunFailed):
    """The rollout engine does not serve the trainer's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """`gap`: mean distance of engine and trainer on the base model, in nats. A later one may be as large as `tolerance`."""

    gap: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProbe:
    """The responses to draw after every sync: always the same requests."""

    requests: tuple[RolloutRequest, ...]
    sampling: Sampling

    def draw(self, engine: Engine) -> list[Rollout]:
        """What the weights that the engine serves answer."""
        return engine.generate(self.requests, self.sampling, on_progress=lambda progress: None, should_stop=lambda: False)


def make_probe(prompts: Sequence[Prompt], seed: int, most_tokens: int) -> SyncProbe:
    """Eight responses of at most 32 tokens, at temperature 1, to prompts spread over all of them."""
    chosen = [prompts[i * len(prompts) // RESPONSES] for i in range(RESPONSES)]
    requests = [
        RolloutRequest(
            prompt_id=prompt.id, sample=sample, prompt_tokens=prompt.tokens, seed=request_seed(seed, "sync", 0, prompt.id, sample)
        )
        for sample, prompt in enumerate(chosen)
    ]
    return SyncProbe(requests=tuple(requests), sampling=Sampling(temperature=1.0, max_tokens=min(MOST_TOKENS, most_tokens)))


def make_far_probe(prompts: Sequence[Prompt], seed: int, longest: int) -> SyncProbe:
    """One response of at most 32 tokens that ends at position `longest`, behind a prompt of all prompts one after the other.

    It is drawn once, at start, where no rotary table shows by which angles engine and trainer rotate: log-probs far from the first
    position then have to be the same.
    """
    most = min(MOST_TOKENS, max(1, longest // 2))
    tokens = [token for prompt in prompts[: longest // 8 + 1] for token in prompt.tokens]
    tokens = (tokens * (longest // max(1, len(tokens)) + 1))[: longest - most]
    request = RolloutRequest(prompt_id="all", sample=0, prompt_tokens=tuple(tokens), seed=request_seed(seed, "far", 0, "", 0))
    return SyncProbe(requests=(request,), sampling=Sampling(temperature=1.0, max_tokens=most))


def logprob_gap(rollouts: Sequence[Rollout], trainer_logprobs: np.ndarray) -> float:
    """Mean |engine - trainer| log-prob in nats over all response tokens [R], one response after the other; infinity if one is not finite.

    The mean, because single tokens of small probability are tenths of a nat apart in half precision though all weights are right.
    """
    gap = np.abs(np.concatenate([rollout.logprobs for rollout in rollouts]) - np.asarray(trainer_logprobs, np.float32))
    return float(gap.mean()) if np.isfinite(gap).all() else float("inf")


def take_yardstick(gap: float, settings: SyncConfig, dtype: str) -> Yardstick:
    """The tolerance of later gaps, from that of the base model.

    Raises:
        WeightSyncError: engine and trainer do not compute the same function of the base model.
    """
    largest = BASE_TOLERANCE[dtype] if settings.base_tolerance is None else settings.base_tolerance
    if not gap <= largest:
        raise WeightSyncError(
            f"engine and trainer differ by {gap:.3g} nats per token on the base model itself (sync.base_tolerance = {largest:.3g}): they "
            "read other weights, or compute with another rope or dtype. Compare model.dtype and the rope settings with what the engine "
            "says at start, or try the other rollout.engine; where the engine is meant to differ, raise the tolerance"
        )
    return Yardstick(gap=gap, tolerance=settings.gap_factor * max(gap, ROUNDING[dtype]))


def check_far_gap(gap: float, settings: SyncConfig, dtype: str) -> None:
    """Raise `WeightSyncError` where engine and trainer do not compute the same at the model's last positions."""
    largest = BASE_TOLERANCE[dtype] if settings.base_tolerance is None else settings.base_tolerance
    if not gap <= largest:
        raise WeightSyncError(
            f"engine and trainer differ by {gap:.3g} nats per token at the end of the longest sequences (sync.base_tolerance = "
            f"{largest:.3g}), though not at the beginning: they place tokens by other angles or positions. Shorten max_response_tokens, or "
            "try the other rollout.engine"
        )


def check_gap(gap: float, yardstick: Yardstick, version: int) -> None:
    """Raise `WeightSyncError` where `gap`, in nats, is beyond what the yardstick allows."""
    if gap == float("inf"):
        raise WeightSyncError(
            f"after the sync of version {version}, log-probs of the probe's responses are not finite: the weights hold NaN or inf. "
            "Lower optimizer.lr and resume with --change from the last checkpoint, or check model.path"
        )
    if not gap <= yardstick.tolerance:
        raise WeightSyncError(
            f"after the sync of version {version}, engine and trainer differ by {gap:.3g} nats per sampled token, where "
            f"{yardstick.gap:.3g} was measured on the base model and {yardstick.tolerance:.3g} is allowed: the engine serves other "
            "weights than the trainer holds, such as those of an earlier step. Resume from the last checkpoint; if it happens again, "
            "report it, or raise sync.gap_factor if rollouts are meant to differ"
        )
