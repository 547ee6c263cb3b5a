"""The sync probe: after a weight sync, a few short responses show whether the engine serves the trainer's weights.

The engine draws them. The gap is the mean distance between its log-probs and the trainer's on the same tokens. Which gap is normal
depends on dtype, engine and model, so it is measured at start, when engine and trainer have both read the base model with code of
their own: that gap is the yardstick for all later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polaris.config.rollout import SyncConfig
from polaris.errors import RunFailed
from polaris.rollout.types import Engine, RolloutRequest, Sampling, Several, request_seed, spread_requests
from polaris.types import Prompt, Rollout

RESPONSES, MOST_TOKENS = 8, 32
BASE_TOLERANCE = {"float32": 3e-4, "bfloat16": 0.25, "float16": 0.25}
"""Largest gap in nats at start; beyond it, engine and trainer compute different functions."""
ROUNDING = {"float32": 3e-6, "bfloat16": 1e-3, "float16": 2e-4}
"""A gap in nats that rounding alone explains. The yardstick may be near 0 if the base model is sure of its tokens."""


class WeightSyncError(RunFailed):
    """The rollout engine does not serve the trainer's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """`gap` is that of the base model, in nats; a later gap may be as large as `tolerance`."""

    gap: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProbe:
    """The requests to draw after every sync, always the same."""

    requests: tuple[RolloutRequest, ...]
    sampling: Sampling

    def draw(self, engine: Engine) -> list[Rollout]:
        """The rollouts of the weights that the engine serves now; those of the first one where it stands for several."""
        return engine.generate(self.requests, self.sampling, on_progress=lambda progress: None, should_stop=lambda: False)

    def draw_on_each(self, engine: Engine) -> list[list[Rollout]]:
        """As `draw`, of each engine that it stands for."""
        return engine.draw_on_each(self.requests, self.sampling) if isinstance(engine, Several) else [self.draw(engine)]


def make_sync_probe(prompts: Sequence[Prompt], seed: int, most_tokens: int) -> SyncProbe:
    """Eight responses of at most 32 tokens, at temperature 1, to prompts spread over all of them."""
    sampling = Sampling(temperature=1.0, max_tokens=min(MOST_TOKENS, most_tokens))
    return SyncProbe(requests=spread_requests(prompts, RESPONSES, seed, "sync"), sampling=sampling)


def make_far_probe(prompts: Sequence[Prompt], seed: int, longest: int) -> SyncProbe:
    """One response of at most 32 tokens that ends at position `longest`, behind a prompt of all prompts one after the other.

    It is drawn once, at start, for models without a rotary table to compare: log-probs far from the first position must then agree.
    """
    most = min(MOST_TOKENS, max(1, longest // 2))
    tokens = [token for prompt in prompts[: longest // 8 + 1] for token in prompt.tokens]
    tokens = (tokens * (longest // max(1, len(tokens)) + 1))[: longest - most]
    request = RolloutRequest(prompt_id="all", sample=0, prompt_tokens=tuple(tokens), seed=request_seed(seed, "far", 0, "", 0))
    return SyncProbe(requests=(request,), sampling=Sampling(temperature=1.0, max_tokens=most))


def logprob_gap(rollouts: Sequence[Rollout], trainer_logprobs: np.ndarray) -> float:
    """Mean |engine - trainer| log-prob in nats over all response tokens [R], response after response; infinity if one is not finite.

    The mean, because in half precision single improbable tokens differ by tenths of a nat even with the right weights.
    """
    gap = np.abs(np.concatenate([rollout.logprobs for rollout in rollouts]) - np.asarray(trainer_logprobs, np.float32))
    return float(gap.mean()) if np.isfinite(gap).all() else float("inf")


def take_yardstick(gap: float, settings: SyncConfig, dtype: str) -> Yardstick:
    """The yardstick from the gap on the base model.

    Raises:
        WeightSyncError: engine and trainer compute different functions of the base model.
    """
    largest = BASE_TOLERANCE[dtype] if settings.base_tolerance is None else settings.base_tolerance
    if not gap <= largest:
        raise WeightSyncError(
            f"engine and trainer differ by {gap:.3g} nats per token on the base model itself (sync.base_tolerance = {largest:.3g}): they "
            "read other weights, or compute with another rope or dtype. Compare model.dtype and the rope settings with what the engine "
            "logs at start, or try the other rollout.engine; if the engine is meant to differ, raise the tolerance"
        )
    return Yardstick(gap=gap, tolerance=settings.gap_factor * max(gap, ROUNDING[dtype]))


def check_far_gap(gap: float, settings: SyncConfig, dtype: str) -> None:
    """Raise `WeightSyncError` if engine and trainer differ at the model's last positions."""
    largest = BASE_TOLERANCE[dtype] if settings.base_tolerance is None else settings.base_tolerance
    if not gap <= largest:
        raise WeightSyncError(
            f"engine and trainer differ by {gap:.3g} nats per token at the end of the longest sequences (sync.base_tolerance = "
            f"{largest:.3g}), but not at the beginning: their rotary angles or positions differ. Shorten max_response_tokens, or "
            "try the other rollout.engine"
        )


def check_gap(gap: float, yardstick: Yardstick, version: int) -> None:
    """Raise `WeightSyncError` if `gap`, in nats, exceeds the yardstick's tolerance."""
    if gap == float("inf"):
        raise WeightSyncError(
            f"after the sync of version {version}, log-probs of the probe's responses are not finite: the weights hold NaN or inf. "
            "Lower optimizer.lr and resume with --change from the last checkpoint, or check model.path"
        )
    if not gap <= yardstick.tolerance:
        raise WeightSyncError(
            f"after the sync of version {version}, engine and trainer differ by {gap:.3g} nats per sampled token; "
            f"{yardstick.gap:.3g} was measured on the base model and {yardstick.tolerance:.3g} is allowed: the engine serves other "
            "weights than the trainer's, perhaps those of an earlier step. Resume from the last checkpoint; if it happens again, "
            "report it, or raise sync.gap_factor if rollouts are meant to differ"
        )
