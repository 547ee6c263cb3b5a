"""The responses of one chunk of a difficulty pass, in rounds: what is settled is not drawn further."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from polaris.config.recipe import ROUND
from polaris.config.schema import RunConfig
from polaris.data.selection import settled
from polaris.observe.early import Early
from polaris.recipe.measured import Measured
from polaris.reward import no_answer
from polaris.rollout.types import GenerationInterrupted, Progress, Sampling
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, draw_rollouts, judge
from polaris.sampling.guards import show_error
from polaris.types import Prompt, Rollout, Verdict


def round_of(config: RunConfig) -> int:
    """Responses of a prompt that are drawn together."""
    return ROUND if config.difficulty.stop_early else config.difficulty.samples_per_prompt


def measure(context: SamplingContext, prompts: Sequence[Prompt], early: Early) -> list[Measured]:
    """Measure the prompts; the result is on every rank. After a stop it holds only prompts whose samples were all complete.

    With difficulty.stop_early a prompt is complete as soon as curation's decision about it stands. What `early` has to say is noted.
    """
    config, done, found = context.config, dict[str, Measured](), dict[str, Measured]()
    samples, left = config.difficulty.samples_per_prompt, list(prompts)
    for first in range(0, samples, round_of(config)):
        number = min(round_of(config), samples - first)
        drawn, interrupted = _draw(context, left, first, number, early)
        found |= {row.id: found[row.id] + row if row.id in found else row for row in drawn}
        ready = [row.id for row in drawn if _is_complete(found[row.id], first + number, config)]
        done |= {name: found[name] for name in ready}
        left = [prompt for prompt in left if prompt.id not in done]
        if interrupted or not left:
            break
    return [done[prompt.id] for prompt in prompts if prompt.id in done]


def _is_complete(row: Measured, drawn: int, config: RunConfig) -> bool:
    left = config.difficulty.samples_per_prompt - drawn
    return not left or settled((row.passed, row.count), left, config.curation)


def _draw(context: SamplingContext, prompts: Sequence[Prompt], first: int, samples: int, early: Early) -> tuple[list[Measured], bool]:
    """One round on every rank, of the prompts whose samples in it are all complete; and whether a stop was requested."""
    config, interrupted = context.config, False
    sampling = Sampling(temperature=config.difficulty.temperature, max_tokens=config.difficulty_tokens)
    draw = Draw(prompts=prompts, samples=samples, sampling=sampling, stream="difficulty", step=0, first=first)
    ended: dict[str, list[Rollout]] = {prompt.id: [] for prompt in prompts}
    early.begin()

    def keep(rollout: Rollout) -> None:
        ended[rollout.prompt_id].append(rollout)
        early.ended(len(rollout.tokens))

    def show(progress: Progress) -> None:
        if said := early.at(progress.tokens, time.monotonic()):
            context.console.note(f"difficulty pass: {said}")

    try:
        draw_rollouts(context, draw, keep, None if context.episode else show)
    except GenerationInterrupted:
        interrupted = True
    rollouts = [rollout for group in ended.values() if len(group) == samples for rollout in group]
    _, verdicts = judge(context, rollouts, prompts, sampling.max_tokens)
    show_error(context, zip((rollout.prompt_id for rollout in rollouts), verdicts, strict=True))
    graded = list(zip(rollouts, verdicts, strict=True))
    mine = [_count(graded[start : start + samples]) for start in range(0, len(graded), samples)]
    return context.world.gather(mine), interrupted


def _count(group: Sequence[tuple[Rollout, Verdict]]) -> Measured:
    """All samples that one prompt has in a round."""
    lost = sum(verdict.lost for _, verdict in group)
    return Measured(
        id=group[0][0].prompt_id,
        passed=sum(verdict.kind == "correct" for _, verdict in group),
        count=len(group) - lost,
        lost=lost,
        tokens=sum(len(rollout.tokens) for rollout, _ in group),
        clipped=sum(rollout.finish_reason == "length" for rollout, _ in group),
        results=dict(Counter(key for _, verdict in group if verdict.kind == "correct" for key in verdict.marked)),
        no_answer=no_answer.count(no_answer.reason(verdict, rollout.finish_reason == "length") for rollout, verdict in group),
    )
