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
from polaris.rollout.types import Progress, Sampling
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, groups_of, sample
from polaris.types import Group, Prompt


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
    config = context.config
    sampling = Sampling(temperature=config.difficulty.temperature, max_tokens=config.difficulty_tokens)
    draw = Draw(prompts=prompts, samples=samples, sampling=sampling, stream="difficulty", step=0, first=first)
    early.begin()

    def show(progress: Progress) -> None:
        if context.episode is None and (said := early.at(progress.tokens, time.monotonic())):
            context.console.note(f"difficulty pass: {said}")

    requests = draw.requests(config.seed)
    with sample(context, draw, requests, on_ended=lambda rollout: early.ended(len(rollout.tokens)), on_progress=show) as sampled:
        groups = groups_of(prompts, sampled.scored())
        return [_count(group) for group in groups if len(group.rollouts) == samples], sampled.interrupted


def _count(group: Group) -> Measured:
    """All samples that one prompt has in a round."""
    scored = group.rollouts
    verdicts = [one.verdict for one in scored]
    lost = sum(verdict.lost for verdict in verdicts)
    return Measured(
        id=group.prompt.id,
        passed=sum(verdict.kind == "correct" for verdict in verdicts),
        count=len(verdicts) - lost,
        lost=lost,
        tokens=sum(len(one.rollout.tokens) for one in scored),
        clipped=sum(one.rollout.finish_reason == "length" for one in scored),
        results=dict(Counter(key for verdict in verdicts if verdict.kind == "correct" for key in verdict.marked)),
        no_answer=no_answer.count(no_answer.reason(one.verdict, one.rollout.finish_reason == "length") for one in scored),
    )
