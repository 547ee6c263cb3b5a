"""Groups, verdicts and results -> the record of one step; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from polaris.algorithm.lengths import length_buckets
from polaris.checkpoint.state import TrainState
from polaris.learn.curate import Curated
from polaris.learn.update import UpdateResult
from polaris.observe.pieces import token_chars
from polaris.observe.samples import RolloutSample, choose
from polaris.reward import no_answer
from polaris.run.clock import Clock
from polaris.run.context import Rooms
from polaris.run.peak import PeakMemory
from polaris.sampling.answers import answers_missing
from polaris.sampling.collect import Graded


def step_record(
    rooms: Rooms,
    state: TrainState,
    curated: Curated,
    results: Sequence[UpdateResult],
    statistics: dict[str, float],
    gap: float,
    clock: Clock,
    memory: PeakMemory,
) -> dict[str, Any]:
    """One object of `metrics.jsonl`. Everything outside `seconds/`, `throughput/` and `memory/` repeats bit for bit."""
    graded = [g for group in curated.drawn for g in group]
    sampled = sum(len(g.rollout.tokens) for g in graded)
    trained = sum(sample.length for sample in curated.samples)
    seconds = clock.seconds
    return {
        "step": state.step,
        "stage": rooms.stage,
        "epoch": state.sampler["epoch"],
        "policy/version": state.version,
        "rollout/temperature": rooms.config.rollout.temperature,
        "rollout/tokens": sampled,
        **reward_facts(graded),
        **group_facts(curated),
        **response_facts(graded, "response"),
        **length_facts(graded, "response", rooms.config.rollout.max_response_tokens),
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
        **memory.facts(),
    }


def reward_facts(graded: Sequence[Graded]) -> dict[str, float]:
    """Rewards and verdict shares of the policy's own responses, and the reasons of those without an answer."""
    kinds = [g.verdict.kind for g in graded]
    return {
        "reward/mean": sum(g.verdict.reward for g in graded) / len(graded),
        "reward/accuracy": kinds.count("correct") / len(kinds),
        **no_answer.metrics(answers_missing(graded), len(graded), "reward/no_answer"),
        "reward/ungradable": kinds.count("ungradable") / len(kinds),
        "reward/killed": sum(g.verdict.lost for g in graded) / len(graded),
    }


def group_facts(curated: Curated) -> dict[str, float]:
    """Kinds of all groups as drawn; what rescue and substitution made of them; whether too few were left for an update.

    The age of a rescuing success is the number of weight versions between the one that sampled it and the present one.
    """
    kinds, version = curated.drawn_kinds, curated.drawn[0][0].rollout.version
    ages = [version - graded.rollout.version for graded in curated.rescued]
    return {
        "groups/drawn": len(curated.drawn),
        "groups/informative": int(kinds.informative.sum()),
        "groups/all_right": int(kinds.all_right.sum()),
        "groups/all_wrong": int(kinds.all_wrong.sum()),
        "groups/too_few": int(kinds.too_few.sum()),
        "groups/scarce": int(curated.scarce),
        "groups/substituted": len(curated.trained) - len(set(curated.trained)),
        "rescue/groups": len(ages),
        **({"rescue/age_mean": sum(ages) / len(ages), "rescue/age_max": max(ages)} if ages else {}),
        "update/skipped": int(not curated.trained),
    }


def response_facts(graded: Sequence[Graded], prefix: str) -> dict[str, float]:
    """Response lengths in tokens and the share cut off at the limit."""
    lengths = np.array([len(g.rollout.tokens) for g in graded])
    return {
        f"{prefix}/length_mean": float(lengths.mean()),
        f"{prefix}/length_max": int(lengths.max()),
        f"{prefix}/clip_ratio": sum(g.rollout.finish_reason == "length" for g in graded) / len(graded),
    }


def length_facts(graded: Sequence[Graded], prefix: str, limit: int) -> dict[str, float]:
    """Accuracy and clip ratio by length, in the buckets of `polaris.algorithm.lengths`."""
    lengths = np.array([len(g.rollout.tokens) for g in graded])
    correct = np.array([g.verdict.kind == "correct" for g in graded])
    clipped = np.array([g.rollout.finish_reason == "length" for g in graded])
    return {f"{prefix}/{name}": value for name, value in length_buckets(lengths, correct, clipped, limit).items()}


def rollout_samples(curated: Curated, tokenizer: PreTrainedTokenizerBase, step: int, count: int) -> list[RolloutSample]:
    """Up to `count` rollouts of the step as text; a success that rescued a group stands in the failure's place, with its own version."""
    everything = [(p, s, graded) for p, group in enumerate(curated.groups) for s, graded in enumerate(group)]
    chosen = choose(step, [graded.verdict.kind for _, _, graded in everything], count)
    return [
        RolloutSample(
            prompt=curated.prompts[p].text,
            response=graded.text,
            ground_truth=str(curated.prompts[p].ground_truth),
            verdict=graded.verdict.kind,
            reason=graded.verdict.reason,
            answer=graded.verdict.answer,
            reward=graded.verdict.reward,
            advantage=float(curated.advantages[p, s]),
            finish_reason=graded.rollout.finish_reason,
            length=len(graded.rollout.tokens),
            version=graded.rollout.version,
            logprobs=tuple(graded.rollout.logprobs.tolist()),
            token_chars=token_chars(tokenizer, graded.rollout.tokens.tolist(), graded.text),
        )
        for p, s, graded in (everything[index] for index in chosen)
    ]
