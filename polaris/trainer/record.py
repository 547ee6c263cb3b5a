"""Groups, verdicts and results -> the record of one step; pure functions."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from polaris.checkpoint.state import TrainState
from polaris.data.prompt import Prompt
from polaris.observe.samples import RolloutSample
from polaris.trainer.clock import Clock
from polaris.trainer.collect import Graded
from polaris.trainer.curate import Curated
from polaris.trainer.rooms import Rooms
from polaris.trainer.update import UpdateResult


def step_record(
    rooms: Rooms,
    state: TrainState,
    groups: Sequence[Sequence[Graded]],
    curated: Curated,
    results: Sequence[UpdateResult],
    statistics: dict[str, float],
    gap: float,
    clock: Clock,
) -> dict[str, Any]:
    """One object of `metrics.jsonl`. Everything outside `seconds/`, `throughput/` and `memory/` repeats bit for bit."""
    graded = [g for group in groups for g in group]
    sampled = sum(len(g.rollout.tokens) for g in graded)
    trained = sum(sample.length for sample in curated.samples)
    seconds = clock.seconds
    return {
        "step": state.step,
        "epoch": state.sampler["epoch"],
        "policy/version": state.version,
        "rollout/temperature": rooms.config.rollout.temperature,
        **reward_facts(graded, curated),
        **response_facts(graded, "response"),
        "policy/loss": sum(result.loss for result in results),
        **statistics,
        "optimizer/grad_norm": max((result.grad_norm for result in results), default=0.0),
        "optimizer/lr": rooms.optimizer.param_groups[0]["lr"],
        "optimizer/skipped": sum(not result.applied for result in results),
        "sync/logprob_gap": gap,
        **{f"seconds/{phase}": value for phase, value in seconds.items()},
        "seconds/step": clock.total(),
        "throughput/rollouts_per_s": len(graded) / seconds["rollout"],
        "throughput/rollout_tokens_per_s": sampled / seconds["rollout"],
        "throughput/train_tokens_per_s": trained / seconds["update"],
        "memory/peak_gib": peak_memory_gib(),
    }


def reward_facts(graded: Sequence[Graded], curated: Curated) -> dict[str, float]:
    """Rewards, verdict shares and counts of group kinds."""
    kinds = [g.verdict.kind for g in graded]
    return {
        "reward/mean": float(curated.rewards.mean()),
        "reward/accuracy": kinds.count("correct") / len(kinds),
        "reward/no_answer": kinds.count("no_answer") / len(kinds),
        "reward/ungradable": kinds.count("ungradable") / len(kinds),
        "reward/killed": sum(g.verdict.lost for g in graded) / len(graded),
        "groups/informative": int(curated.kinds.informative.sum()),
        "groups/all_right": int(curated.kinds.all_right.sum()),
        "groups/all_wrong": int(curated.kinds.all_wrong.sum()),
    }


def response_facts(graded: Sequence[Graded], prefix: str) -> dict[str, float]:
    """Response lengths in tokens and the share cut off at the limit."""
    lengths = np.array([len(g.rollout.tokens) for g in graded])
    return {
        f"{prefix}/length_mean": float(lengths.mean()),
        f"{prefix}/length_max": int(lengths.max()),
        f"{prefix}/clip_ratio": sum(g.rollout.finish_reason == "length" for g in graded) / len(graded),
    }


def rollout_samples(prompts: Sequence[Prompt], groups: Sequence[Sequence[Graded]], curated: Curated) -> list[RolloutSample]:
    """Every rollout of the step as text."""
    return [
        RolloutSample(
            prompt=prompts[p].text,
            response=graded.text,
            ground_truth=str(prompts[p].ground_truth),
            verdict=graded.verdict.kind,
            reason=graded.verdict.reason,
            answer=graded.verdict.answer,
            reward=graded.verdict.reward,
            advantage=float(curated.advantages[p, s]),
            finish_reason=graded.rollout.finish_reason,
            length=len(graded.rollout.tokens),
            version=graded.rollout.version,
            logprobs=tuple(graded.rollout.logprobs.tolist()),
        )
        for p, group in enumerate(groups)
        for s, graded in enumerate(group)
    ]


def peak_memory_gib() -> float:
    """Most memory this rank has held: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
