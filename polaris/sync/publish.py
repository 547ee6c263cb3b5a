"""Publishing the trainer's weights to the rollout engine as one versioned transaction, and the proof that it serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polaris.distributed.mesh import World
from polaris.rollout.types import Engine, RolloutRequest, Several
from polaris.sync.held import Weights, check_held
from polaris.sync.probe import SyncProbe, WeightSyncError, Yardstick, check_gap, logprob_gap
from polaris.types import Rollout

if TYPE_CHECKING:
    import torch

TrainerLogprobs = Callable[[Sequence[RolloutRequest], Sequence[Rollout]], np.ndarray]
"""The trainer's log-probs [R] of all response tokens, rollout after rollout, each at its temperature."""


def publish(engine: Engine, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
    """Wake the engine, load all weights (Hugging Face names, full tensors) and drop caches of the old ones; it then serves `version`.

    The engine sleeps from the end of a step's rollouts until this call, and runs no request. Tensors are taken one at a time, so
    `weights` may gather them lazily. Call it on every rank, since gathering is collective.

    Raises:
        RuntimeError: the weights are not exactly those of the model; the engine is closed.
    """
    engine.wake()
    engine.load_weights(weights, version)


def measure_gap(engine: Engine, probe: SyncProbe, trainer_logprobs: TrainerLogprobs, world: World) -> float:
    """The largest of `measure_gaps`."""
    return max(measure_gaps(engine, probe, trainer_logprobs, world), default=0.0)


def measure_gaps(engine: Engine, probe: SyncProbe, trainer_logprobs: TrainerLogprobs, world: World) -> list[float]:
    """The `logprob_gap` of each engine on the responses of the probe, in nats, in the order of `SyncProbe.draw_on_each`; where every rank
    has an engine of its own, the largest of all. A collective on every rank that trains.

    Engines on ranks of their own are dealt out to them; all ranks compute log-probs equally often, since that is a collective.
    """
    drawn = probe.draw_on_each(engine)
    if not isinstance(engine, Several):
        (rollouts,) = drawn
        return [max(world.gather([logprob_gap(rollouts, trainer_logprobs(probe.requests, rollouts))]))]
    places = [place for start in range(0, len(drawn), world.size) for place in [(start + world.rank) % len(drawn)]]
    gaps = dict(world.gather([(place, logprob_gap(drawn[place], trainer_logprobs(probe.requests, drawn[place]))) for place in places]))
    return [gaps[place] for place in range(len(drawn))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProof:
    """The proof after every weight sync: the gap of `probe` must fit the yardstick, and adapters that the engine holds beside the model's
    weights, in `dtype`, must be those `held` by the trainer."""

    probe: SyncProbe
    yardstick: Yardstick
    trainer_logprobs: TrainerLogprobs
    held: Weights | None = None
    dtype: str = "float32"

    def check(self, engine: Engine, version: int, world: World) -> float:
        """The gap (`measure_gap`) after `version` was published. One of several engines that serves other weights is started again.

        Raises:
            WeightSyncError: the engine's log-probs differ from the trainer's, or its adapters do.
        """
        if self.held is not None:
            check_held(engine, self.held, version, self.dtype, world)
        while True:
            gaps = measure_gaps(engine, self.probe, self.trainer_logprobs, world)
            worst = max(gaps, default=0.0)
            try:
                check_gap(worst, self.yardstick, version)
            except WeightSyncError as error:
                if not isinstance(engine, Several) or worst == float("inf"):
                    raise
                allowed = self.yardstick.tolerance
                said = f"serves other weights: {{:.3g}} nats per sampled token from version {version}, and {allowed:.3g} are allowed"
                engine.dismiss({place: said.format(gap) for place, gap in enumerate(gaps) if gap > allowed}, error)
                continue
            if isinstance(engine, Several):
                engine.approve()
            return worst
