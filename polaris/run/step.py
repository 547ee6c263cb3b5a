"""One training step, in the order of the data flow."""

from __future__ import annotations

from typing import Any

from polaris.checkpoint.state import TrainState
from polaris.distributed.fsdp import assert_sharded, shard_group
from polaris.errors import RunFailed
from polaris.learn.curate import Curated, count_verdicts
from polaris.learn.optimizer import learning_rate
from polaris.learn.rescue import store_successes
from polaris.learn.statistics import Statistics
from polaris.learn.update import UpdateResult, rank_packs, split_updates, update, with_proximal_logprobs
from polaris.observe.samples import RolloutSample
from polaris.run.clock import Clock
from polaris.run.context import Rooms
from polaris.run.generate import generate
from polaris.run.peak import PeakMemory
from polaris.run.record import rollout_samples, step_record
from polaris.run.serve import serve_weights

_HALF = "; float16 also overflows where activations pass 65,504, and bfloat16 does not"


class NonFiniteRun(RunFailed):
    """Too many updates in a row had a non-finite loss or gradient."""


def train_step(rooms: Rooms, state: TrainState) -> tuple[TrainState, dict[str, Any], list[RolloutSample]]:
    """Rollouts -> verdicts -> curation -> update -> weight sync; returns the next state, its record and samples to keep.

    Ledger and stored successes change only when the step is done, by what the policy itself has drawn.

    Raises:
        GenerationInterrupted: a stop was requested during the rollouts; weights, state, ledger and successes are those of before.
        GradingFailed: more than 1 % of the responses killed their grading process.
        NoAnswers: no response of the first step has an answer.
        NonFiniteRun: `trainer.max_nonfinite_steps` updates in a row were not finite.
    """
    clock, memory, step = Clock(rooms.console), PeakMemory(rooms.engine), state.step + 1
    assert_sharded(rooms.policy)
    curated = generate(rooms, step, clock)
    memory.end("rollout")
    with clock.phase("update"):
        rooms.engine.sleep()
        statistics = Statistics()
        results = run_updates(rooms, curated, step, statistics)
        statistics.all_reduce(rooms.world.device, shard_group(rooms.policy))
    memory.end("update")
    version = state.version + any(result.applied for result in results)
    with clock.phase("sync"):
        gap = serve_weights(rooms, version)
    memory.end("sync")
    count_verdicts(rooms.ledger, curated.prompts, curated.drawn)
    store_successes(rooms.successes, curated.prompts, curated.drawn)
    following = TrainState(
        step=step, version=version, sampler=rooms.sampler.state(), nonfinite_streak=_streak(rooms, state.nonfinite_streak, results)
    )
    record = step_record(rooms, following, curated, results, statistics.compute(), gap, clock, memory)
    return following, record, rollout_samples(curated, rooms.tokenizer, step, rooms.config.observe.samples_per_step)


def run_updates(rooms: Rooms, curated: Curated, step: int, statistics: Statistics) -> list[UpdateResult]:
    """All updates of a step; the proximal policy is the one before the first of them."""
    config = rooms.config
    for group in rooms.optimizer.param_groups:
        group["lr"] = learning_rate(config.optimizer, step, config.steps)
    batches = split_updates(curated.samples, config.trainer.updates_per_step)
    packs = [rank_packs(batch, rooms.world, config.trainer.tokens_per_pack) for batch in batches]
    if len(batches) > 1:
        packs = [with_proximal_logprobs(rooms.policy, of_batch) for of_batch in packs]
    return [
        update(rooms.policy, rooms.optimizer, of_batch, batch, config, statistics) for batch, of_batch in zip(batches, packs, strict=True)
    ]


def _streak(rooms: Rooms, streak: int, results: list[UpdateResult]) -> int:
    for result in results:
        streak = 0 if result.applied else streak + 1
        if streak >= rooms.config.trainer.max_nonfinite_steps:
            raise NonFiniteRun(
                f"{streak} updates in a row had a non-finite loss ({result.loss}) or gradient norm ({result.grad_norm}); none was applied. "
                "Lower optimizer.lr and resume with --change, or look at the last "
                f"rollouts{_HALF if rooms.config.model.dtype == 'float16' else ''}"
            )
    return streak
