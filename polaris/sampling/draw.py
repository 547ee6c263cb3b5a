"""Prompts -> groups: this rank's share through the engine and the grader, then everybody's on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polaris.distributed import watch
from polaris.distributed.travel import gather_scored
from polaris.reward.protocol import RewardItem
from polaris.rollout.types import GenerationInterrupted, Progress, RolloutRequest, Sampling, request_of, request_seed
from polaris.sampling.context import SamplingContext
from polaris.sampling.episode import Episodes
from polaris.sampling.guards import show_error
from polaris.types import Group, Prompt, Rollout, ScoredRollout, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which samples to draw: of each prompt those numbered from `first` on. A sample's seed is a function of the run's seed, `stream`,
    `step`, prompt id and sample number."""

    prompts: Sequence[Prompt]
    samples: int
    sampling: Sampling
    stream: str
    step: int
    first: int = 0


def draw_groups(context: SamplingContext, draw: Draw) -> list[Group]:
    """The group of every prompt, on every rank; see `score`. Raises `GenerationInterrupted`."""
    return score(context, draw_rollouts(context, draw), draw.prompts, draw.sampling.max_tokens)


def draw_rollouts(
    context: SamplingContext,
    draw: Draw,
    on_finished: Callable[[Rollout], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Rollout]:
    """Rollouts of this rank's engine, with live progress. If any rank was asked to stop, every rank raises `GenerationInterrupted`.

    `on_finished` is called with each rollout as soon as it is complete, also where a stop is requested later. Ranks of one
    tensor-parallel group draw the same requests; only the first of them returns the result and calls `on_finished`. `on_progress` is
    called on every rank, by an episode anew for each turn.
    """

    def show(progress: Progress) -> None:
        watch.mark(f"rollouts, {progress.finished} of {progress.total} ended")
        context.console.progress(progress.finished, progress.total, progress.tokens)
        if on_progress is not None:
            on_progress(progress)

    def generate(requests: Sequence[RolloutRequest], sampling: Sampling, heard: Callable[[Rollout], None] | None) -> list[Rollout]:
        return context.engine.generate(requests, sampling, on_progress=show, should_stop=context.stop.requested, on_finished=heard)

    world, parallel = context.world, context.config.rollout.tensor_parallel
    first = world.rank % parallel == 0
    requests = requests_of(draw, context.config.seed, world.rank // parallel, world.size // parallel)
    rollouts: list[Rollout] = []
    interrupted = False
    try:
        if context.episode is None:
            rollouts = generate(requests, draw.sampling, on_finished if first else None)
        else:
            rollouts = _episodes(context, draw, first, on_finished).play(requests, generate)
    except GenerationInterrupted:
        interrupted = True
    if world.any(interrupted):
        raise GenerationInterrupted
    return rollouts if first else []


def _episodes(context: SamplingContext, draw: Draw, first: bool, on_finished: Callable[[Rollout], None] | None) -> Episodes:
    def seed(request: RolloutRequest, turn: int) -> int:
        return request_seed(context.config.seed, f"{draw.stream}/turn-{turn}", draw.step, request.prompt_id, request.sample)

    prompts = {prompt.id: prompt for prompt in draw.prompts}
    return Episodes(context=context, prompts=prompts, sampling=draw.sampling, seed=seed, first=first, on_finished=on_finished)


def requests_of(draw: Draw, run_seed: int, engine_index: int, engines: int) -> list[RolloutRequest]:
    """The requests of one of `engines` engines: a contiguous share of the prompts, all samples of a prompt together."""
    count = len(draw.prompts)
    return [
        request_of(prompt, sample, run_seed, draw.stream, draw.step)
        for prompt in draw.prompts[count * engine_index // engines : count * (engine_index + 1) // engines]
        for sample in range(draw.first, draw.first + draw.samples)
    ]


def judge(context: SamplingContext, rollouts: Sequence[Rollout], prompts: Sequence[Prompt], limit: int) -> tuple[list[str], list[Verdict]]:
    """Text and verdict of each of this rank's rollouts of at most `limit` tokens; there may be none."""
    asked = {prompt.id: prompt for prompt in prompts}
    tokens = [rollout.tokens.tolist() for rollout in rollouts]
    texts = context.tokenizer.batch_decode(tokens, skip_special_tokens=True) if tokens else []  # transformers decodes [] to [""]
    items = [_item(asked[rollout.prompt_id], rollout, text, limit) for text, rollout in zip(texts, rollouts, strict=True)]
    return texts, context.grader.score(items)


def _item(prompt: Prompt, rollout: Rollout, text: str, limit: int) -> RewardItem:
    return RewardItem(
        response=text,
        ground_truth=prompt.ground_truth,
        prompt=prompt.text,
        messages=prompt.messages,
        finish_reason=rollout.finish_reason,
        length=len(rollout.tokens),
        limit=limit,
        row=prompt.row,
    )


def score(context: SamplingContext, rollouts: Sequence[Rollout], prompts: Sequence[Prompt], limit: int) -> list[Group]:
    """Grade this rank's rollouts of at most `limit` tokens and gather everybody's: the group of every prompt, on every rank.

    Texts and arrays are on rank 0 alone (`polaris.distributed.travel`).
    """
    texts, verdicts = judge(context, rollouts, prompts, limit)
    mine = [ScoredRollout(rollout=r, text=t, verdict=v) for r, t, v in zip(rollouts, texts, verdicts, strict=True)]
    found: dict[str, list[ScoredRollout]] = {prompt.id: [] for prompt in prompts}
    everything = gather_scored(mine, context.world)
    show_error(context, ((scored.rollout.prompt_id, scored.verdict) for scored in everything))
    for scored in everything:
        found[scored.rollout.prompt_id].append(scored)
    return [Group(prompt=prompt, rollouts=tuple(found[prompt.id])) for prompt in prompts]
