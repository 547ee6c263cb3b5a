"""Groups, verdicts and results -> the record of one step; pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from polaris.algorithm.lengths import length_buckets
from polaris.checkpoint.store import TrainState
from polaris.learn.curate import TrainingBatch
from polaris.learn.learner import StepResult
from polaris.observe.samples import RolloutSample, choose, token_chars
from polaris.reward import no_answer
from polaris.reward.functions import named
from polaris.run.context import TrainContext
from polaris.run.peak import PeakMemory
from polaris.sampling.guards import answers_missing
from polaris.types import RAISED, Group, ScoredRollout

_UNNAMEABLE = re.compile(r"[^\w.-]+")


def step_record(
    context: TrainContext, state: TrainState, batch: TrainingBatch, result: StepResult, gap: float, memory: PeakMemory
) -> dict[str, Any]:
    """One object of `metrics.jsonl`. Everything outside `seconds/`, `throughput/` and `memory/` repeats bit for bit."""
    drawn = [scored for group in batch.drawn for scored in group.rollouts]
    sampled = context.source.carried.generated
    trained = sum(sample.length for sample in batch.samples)
    seconds, drawing = context.source.clock.seconds, context.source.sampling_seconds
    return {
        "step": state.step,
        "stage": context.stage,
        "epoch": state.sampler["epoch"],
        "policy/version": state.version,
        "rollout/temperature": drawn[0].rollout.temperature,
        "rollout/tokens": sampled,
        **reward_facts(drawn),
        **reward_parts(drawn, named(context.config.reward), "reward"),
        **process_facts(context, batch.drawn),
        **({} if batch.kl is None else {"reward/kl_reference": float(batch.kl[batch.counted].mean())}),
        **group_facts(batch),
        **set_facts(batch.drawn),
        **level_facts(batch.drawn),
        **context.source.carried.facts,
        **curriculum_facts(context.source.sampler_facts, batch.drawn),
        **response_facts(drawn, "response"),
        **length_facts(drawn, "response", context.config.rollout.max_response_tokens),
        **(episode_facts(drawn) if context.sampling.episode else {}),
        "update/tokens": trained,
        "update/response_tokens": sum(len(sample.chosen) for sample in batch.samples),
        "policy/loss": sum(update.loss for update in result.updates),
        **result.statistics,
        "optimizer/grad_norm": max((update.grad_norm for update in result.updates), default=0.0),
        "optimizer/lr": context.learner.lr,
        "optimizer/skipped": sum(not update.applied for update in result.updates),
        "sync/logprob_gap": gap,
        **{f"seconds/{phase}": value for phase, value in seconds.items()},
        "seconds/step": context.source.clock.total(),
        "throughput/rollouts_per_s": len(drawn) / drawing,
        "throughput/rollout_tokens_per_s": sampled / drawing,
        "throughput/train_tokens_per_s": trained / seconds["update"],
        **memory.facts(),
    }


def diversity_facts(context: TrainContext, diversity: np.ndarray) -> dict[str, float]:
    """The mean `diversity` [P] of the step's groups, and the one that a stage with `temperature = "track"` holds."""
    held = context.tracker.track and context.tracker.track.held
    return {"rollout/diversity": float(diversity.mean())} | ({"rollout/diversity_held": held.diversity} if held else {})


def reward_facts(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    """Rewards and verdict shares of the policy's own responses, and the reasons of those without an answer."""
    kinds = [s.verdict.kind for s in scored]
    return {
        "reward/mean": sum(s.verdict.reward for s in scored) / len(scored),
        "reward/accuracy": kinds.count("correct") / len(kinds),
        **no_answer.metrics(answers_missing(scored), len(scored), "reward/no_answer"),
        "reward/ungradable": kinds.count("ungradable") / len(kinds),
        "reward/killed": sum(s.verdict.lost and s.verdict.reason != RAISED for s in scored) / len(scored),
    }


def reward_parts(scored: Sequence[ScoredRollout], names: Sequence[str], prefix: str) -> dict[str, float]:
    """The mean and standard deviation of each named reward, without its weight, over the responses that were graded; and the share at which
    one raised."""
    if not names:
        return {}
    parts = np.array([s.verdict.parts for s in scored if not s.verdict.lost]).reshape(-1, len(names))
    graded = zip(names, parts.T, strict=True) if len(parts) else ()
    facts = {f"{prefix}/{name}/{fact}": float(getattr(values, fact)()) for name, values in graded for fact in ("mean", "std")}
    return facts | {f"{prefix}/raised": sum(s.verdict.reason == RAISED for s in scored) / len(scored)}


def process_facts(context: TrainContext, groups: Sequence[Group]) -> dict[str, float]:
    """Of the process reward, where there is one: what wrong responses earn by it, the marked results, and the size of the prompts' sets
    after the step."""
    process = context.config.reward.process
    if not process.most:
        return {}
    verdicts = [scored.verdict for group in groups for scored in group.rollouts]
    wrong = [verdict.process for verdict in verdicts if verdict.kind == "wrong"]
    marks = [verdict.marks for verdict in verdicts if verdict.marks is not None]
    return {
        "reward/process_mean": sum(wrong) / max(1, len(wrong)),
        "reward/process_share": sum(earned > 0 for earned in wrong) / max(1, len(wrong)),
        "reward/process_marks": sum(marks) / max(1, len(marks)),
        "reward/process_too_many": sum(number > process.marks for number in marks) / len(verdicts),
        "reward/process_lost": 1 - len(marks) / len(verdicts),
        "reward/process_results": sum(context.results.size(group.prompt.id) for group in groups) / len(groups),
    }


def group_facts(batch: TrainingBatch) -> dict[str, float]:
    """Kinds of the groups as drawn; how many were rescued and substituted; whether too few were left for an update.

    The age of a stored success is the number of weight versions since it was sampled.
    """
    kinds = batch.drawn_kinds
    ages = [batch.version - scored.rollout.version for scored in batch.rescued]
    return {
        "groups/drawn": len(batch.drawn),
        "groups/informative": int(kinds.informative.sum()),
        "groups/all_right": int(kinds.all_right.sum()),
        "groups/all_wrong": int(kinds.all_wrong.sum()),
        "groups/too_few": int(kinds.too_few.sum()),
        "groups/scarce": int(batch.scarce),
        "groups/substituted": len(batch.trained) - len(set(batch.trained)),
        "rescue/groups": len(ages),
        **({"rescue/age_mean": sum(ages) / len(ages), "rescue/age_max": max(ages)} if ages else {}),
        "update/skipped": int(not batch.samples),
    }


def set_facts(groups: Sequence[Group], prefix: str = "data") -> dict[str, float]:
    """Of each prompt set, where there are several: its share of the prompts, and the share of correct responses to them."""
    names = sorted({group.prompt.set for group in groups} - {""})
    facts: dict[str, float] = {}
    for name in names:
        kinds = [[scored.verdict.kind for scored in group.rollouts] for group in groups if group.prompt.set == name]
        facts[f"{prefix}/{name}/prompts"] = len(kinds) / len(groups)
        facts[f"{prefix}/{name}/accuracy"] = sum(one.count("correct") for one in kinds) / sum(map(len, kinds))
    return facts


def level_facts(groups: Sequence[Group], prefix: str = "level") -> dict[str, float]:
    """Of each level that the prompts' rows name, by task where they name one too: its responses, and the share of correct ones.

    A level is a whole number or a word; another number would have a name for each prompt. What trackers do not take in a name is "_".
    """
    kinds: dict[str, list[str]] = {}
    for group in groups:
        task, level = group.prompt.row.get("task"), group.prompt.row.get("level")
        if isinstance(level, int | str):
            name = "/".join(_UNNAMEABLE.sub("_", str(part)) for part in (task, level) if isinstance(part, int | str))
            kinds.setdefault(name, []).extend(scored.verdict.kind for scored in group.rollouts)
    facts: dict[str, float] = {}
    for name, found in sorted(kinds.items()):
        facts[f"{prefix}/{name}/responses"] = len(found)
        facts[f"{prefix}/{name}/accuracy"] = found.count("correct") / len(found)
    return facts


def curriculum_facts(drawn: dict[str, float], groups: Sequence[Group]) -> dict[str, float]:
    """What a sampler with a target has `drawn`, and the mean pass rate that these groups turned out to have."""
    kinds = [[scored.verdict.kind for scored in group.rollouts if not scored.verdict.lost] for group in groups]
    rates = [one.count("correct") / len(one) for one in kinds if one]
    return drawn | {"curriculum/measured": sum(rates) / len(rates)} if drawn and rates else drawn


def response_facts(scored: Sequence[ScoredRollout], prefix: str) -> dict[str, float]:
    """Response lengths in tokens and the share cut off at the limit."""
    lengths = np.array([len(s.rollout.tokens) for s in scored])
    return {
        f"{prefix}/length_mean": float(lengths.mean()),
        f"{prefix}/length_max": int(lengths.max()),
        f"{prefix}/clip_ratio": sum(s.rollout.finish_reason == "length" for s in scored) / len(scored),
    }


def episode_facts(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    """Turns per response, and the share of response tokens that the policy read and did not write."""
    turns = [s.rollout.turns for s in scored]
    read, tokens = sum(s.rollout.read for s in scored), sum(len(s.rollout.tokens) for s in scored)
    return {"episode/turns_mean": sum(turns) / len(turns), "episode/turns_max": max(turns), "episode/read_share": read / tokens}


def length_facts(scored: Sequence[ScoredRollout], prefix: str, limit: int) -> dict[str, float]:
    """Accuracy and clip ratio by length, in the buckets of `polaris.algorithm.lengths`."""
    lengths = np.array([len(s.rollout.tokens) for s in scored])
    correct = np.array([s.verdict.kind == "correct" for s in scored])
    clipped = np.array([s.rollout.finish_reason == "length" for s in scored])
    return {f"{prefix}/{name}": value for name, value in length_buckets(lengths, correct, clipped, limit).items()}


def rollout_samples(batch: TrainingBatch, tokenizer: PreTrainedTokenizerBase, step: int, count: int) -> list[RolloutSample]:
    """Up to `count` rollouts of the step as text; a stored success that rescued a group is among them, with its own version."""
    everything = [(p, s, scored) for p, group in enumerate(batch.groups) for s, scored in enumerate(group.rollouts)]
    chosen = choose(step, [scored.verdict.kind for _, _, scored in everything], count)
    return [
        RolloutSample(
            prompt=batch.drawn[p].prompt.text,
            response=scored.text,
            ground_truth=str(batch.drawn[p].prompt.ground_truth),
            verdict=scored.verdict.kind,
            reason=scored.verdict.reason,
            answer=scored.verdict.answer,
            reward=scored.verdict.reward,
            process=scored.verdict.process or None,
            advantage=float(batch.advantages[p, s]),
            finish_reason=scored.rollout.finish_reason,
            length=len(scored.rollout.tokens),
            version=scored.rollout.version,
            logprobs=tuple(scored.rollout.logprobs.tolist()),
            messages=batch.drawn[p].prompt.messages,
            token_chars=token_chars(tokenizer, scored.rollout.tokens.tolist(), scored.text),
        )
        for p, s, scored in (everything[index] for index in chosen)
    ]
