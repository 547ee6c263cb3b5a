"""Prompts -> graded groups: this rank's share through the engine and the grader, then everybody's on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from polaris.data.prompt import Prompt
from polaris.distributed.mesh import World
from polaris.reward.pool import GraderPool
from polaris.reward.verdict import Verdict
from polaris.rollout.seeds import request_seed
from polaris.rollout.types import Engine, GenerationInterrupted, Progress, Request, Rollout, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A rollout with its text and verdict."""

    rollout: Rollout
    text: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which samples to draw: `stream` and `step` go into every request's seed."""

    prompts: Sequence[Prompt]
    samples: int
    sampling: Sampling
    stream: str
    step: int
    run_seed: int


def requests_of(draw: Draw, engine_index: int, engines: int) -> list[Request]:
    """The requests of one of `engines` engines: a contiguous share of the prompts, all samples of a prompt together."""
    count = len(draw.prompts)
    share = range(count * engine_index // engines, count * (engine_index + 1) // engines)
    return [
        Request(
            key=(p, s),
            prompt_tokens=draw.prompts[p].tokens,
            seed=request_seed(draw.run_seed, draw.stream, draw.step, draw.prompts[p].id, s),
        )
        for p in share
        for s in range(draw.samples)
    ]


def generate(
    draw: Draw,
    engine: Engine,
    world: World,
    tensor_parallel: int,
    *,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> list[Rollout]:
    """Rollouts of this rank's engine. If any rank was asked to stop, every rank raises `GenerationInterrupted`.

    Ranks of one tensor-parallel group draw the same requests; only the first of them returns the result.
    """
    requests = requests_of(draw, world.rank // tensor_parallel, world.size // tensor_parallel)
    rollouts: list[Rollout] = []
    interrupted = False
    try:
        rollouts = engine.generate(requests, draw.sampling, on_progress=on_progress, should_stop=should_stop)
    except GenerationInterrupted:
        interrupted = True
    if world.any(interrupted):
        raise GenerationInterrupted
    return rollouts if world.rank % tensor_parallel == 0 else []


def grade(
    rollouts: Sequence[Rollout], prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, grader: GraderPool, world: World
) -> list[list[Graded]]:
    """Verdicts of this rank's rollouts, gathered: for every prompt its graded samples, on every rank."""
    texts = tokenizer.batch_decode([rollout.tokens.tolist() for rollout in rollouts], skip_special_tokens=True)
    verdicts = grader.grade([(text, prompts[rollout.key[0]].ground_truth) for text, rollout in zip(texts, rollouts, strict=True)])
    mine = [Graded(rollout=r, text=t, verdict=v) for r, t, v in zip(rollouts, texts, verdicts, strict=True)]
    groups: list[list[Graded]] = [[] for _ in prompts]
    for graded in world.gather(mine):
        groups[graded.rollout.key[0]].append(graded)
    return groups
