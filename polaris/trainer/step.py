"""One training step, in the order of the data flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polaris.algorithm.metrics import Statistics
from polaris.checkpoint.state import TrainState
from polaris.observe.samples import RolloutSample
from polaris.rollout.types import Progress, Rollout, Sampling
from polaris.trainer.breaker import stop_if_grading_fails
from polaris.trainer.clock import Clock
from polaris.trainer.collect import Draw, generate, grade
from polaris.trainer.curate import Curated, curate
from polaris.trainer.optimizer import learning_rate
from polaris.trainer.record import rollout_samples, step_record
from polaris.trainer.rooms import Rooms
from polaris.trainer.serve import serve_weights
from polaris.trainer.update import UpdateResult, proximal_logprobs, rank_packs, split_updates, update


class NonFiniteRun(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient."""


def train_step(rooms: Rooms, state: TrainState) -> tuple[TrainState, dict[str, Any], list[RolloutSample]]:
    """Rollouts -> verdicts -> advantages -> update -> weight sync; returns the next state, its record and samples to keep.

    Raises:
        GenerationInterrupted: a stop was requested during the rollouts; weights and state are those of before.
        GradingFailed: more than 1 % of the responses killed their grading process.
        NonFiniteRun: `trainer.max_nonfinite_steps` updates in a row were not finite.
    """
    clock, step = Clock(rooms.console), state.step + 1
    prompts = [rooms.prompts[i] for i in rooms.sampler.next()]
    draw = Draw(
        prompts=prompts,
        samples=rooms.config.rollout.samples_per_prompt,
        sampling=Sampling(temperature=rooms.config.rollout.temperature, max_tokens=rooms.config.rollout.max_response_tokens),
        stream="train",
        step=step,
        run_seed=rooms.config.seed,
    )
    with clock.phase("rollout"):
        rollouts = draw_rollouts(rooms, draw)
    with clock.phase("reward"):
        groups = grade(rollouts, prompts, rooms.tokenizer, rooms.grader, rooms.world)
        stop_if_grading_fails(groups, prompts, Path(rooms.config.root) / rooms.config.name)
        curated = curate(groups, rooms.config.algorithm)
    with clock.phase("update"):
        rooms.engine.sleep()
        statistics = Statistics()
        results = run_updates(rooms, curated, step, statistics)
        statistics.all_reduce(rooms.world.device)
    version = state.version + any(result.applied for result in results)
    with clock.phase("sync"):
        gap = serve_weights(rooms, version)
    following = TrainState(
        step=step, version=version, sampler=rooms.sampler.state(), nonfinite_streak=_streak(rooms, state.nonfinite_streak, results)
    )
    record = step_record(rooms, following, groups, curated, results, statistics.compute(), gap, clock)
    return following, record, rollout_samples(prompts, groups, curated)


def draw_rollouts(rooms: Rooms, draw: Draw) -> list[Rollout]:
    """Rollouts of this rank's engine, with live progress."""

    def show(progress: Progress) -> None:
        rooms.console.progress(progress.finished, progress.total, progress.tokens)

    return generate(
        draw, rooms.engine, rooms.world, rooms.config.rollout.tensor_parallel, on_progress=show, should_stop=rooms.stop.requested
    )


def run_updates(rooms: Rooms, curated: Curated, step: int, statistics: Statistics) -> list[UpdateResult]:
    """All updates of a step; the proximal policy is the one before the first of them."""
    config = rooms.config
    for group in rooms.optimizer.param_groups:
        group["lr"] = learning_rate(config.optimizer, step, config.trainer.steps)
    batches = split_updates(curated.samples, config.trainer.updates_per_step)
    packs = [rank_packs(batch, rooms.world, config.trainer.tokens_per_pack) for batch in batches]
    proximal = [proximal_logprobs(rooms.policy, p) for p in packs] if len(batches) > 1 else [None] * len(batches)
    return [
        update(rooms.policy, rooms.optimizer, pack, old, batch, config, statistics)
        for batch, pack, old in zip(batches, packs, proximal, strict=True)
    ]


def _streak(rooms: Rooms, streak: int, results: list[UpdateResult]) -> int:
    for result in results:
        streak = 0 if result.applied else streak + 1
        if streak >= rooms.config.trainer.max_nonfinite_steps:
            raise NonFiniteRun(
                f"{streak} updates in a row had a non-finite loss ({result.loss}) or gradient norm ({result.grad_norm}); none was applied. "
                "Lower optimizer.lr, or look at the last rollouts"
            )
    return streak
