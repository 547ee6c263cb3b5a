"""Prompts -> graded groups: this rank's share through the engine and the grader, then everybody's on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polaris.distributed import watch
from polaris.rollout.seeds import request_seed
from polaris.rollout.types import GenerationInterrupted, Progress, Request, Sampling
from polaris.sampling.context import EngineRooms
from polaris.types import Prompt, Rollout, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A rollout with its text and verdict."""

    rollout: Rollout
    text: str
    verdict: Verdict
    stored: bool = False
    """It comes from an earlier epoch's successes, not from the present weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which samples to draw: `stream` and `step` go into every request's seed, and so does the run's."""

    prompts: Sequence[Prompt]
    samples: int
    sampling: Sampling
    stream: str
    step: int


def draw_groups(rooms: EngineRooms, draw: Draw) -> list[list[Graded]]:
    """For every prompt its graded samples, on every rank. Raises `GenerationInterrupted`."""
    return grade(rooms, draw_rollouts(rooms, draw), draw.prompts)


def draw_rollouts(rooms: EngineRooms, draw: Draw, on_finished: Callable[[Rollout], None] | None = None) -> list[Rollout]:
    """Rollouts of this rank's engine, with live progress. If any rank was asked to stop, every rank raises `GenerationInterrupted`.

    `on_finished` hears of each rollout as soon as it ends, and so of those that a stop finds ended. Ranks of one tensor-parallel group
    draw the same requests; only the first of them returns the result and calls `on_finished`.
    """

    def show(progress: Progress) -> None:
        watch.mark(f"rollouts, {progress.finished} of {progress.total} ended")
        rooms.console.progress(progress.finished, progress.total, progress.tokens)

    world, parallel = rooms.world, rooms.config.rollout.tensor_parallel
    first = world.rank % parallel == 0
    requests = requests_of(draw, rooms.config.seed, world.rank // parallel, world.size // parallel)
    rollouts: list[Rollout] = []
    interrupted = False
    try:
        rollouts = rooms.engine.generate(
            requests, draw.sampling, on_progress=show, should_stop=rooms.stop.requested, on_finished=on_finished if first else None
        )
    except GenerationInterrupted:
        interrupted = True
    if world.any(interrupted):
        raise GenerationInterrupted
    return rollouts if first else []


def requests_of(draw: Draw, run_seed: int, engine_index: int, engines: int) -> list[Request]:
    """The requests of one of `engines` engines: a contiguous share of the prompts, all samples of a prompt together."""
    count = len(draw.prompts)
    share = range(count * engine_index // engines, count * (engine_index + 1) // engines)
    return [
        Request(
            key=(p, s),
            prompt_tokens=draw.prompts[p].tokens,
            seed=request_seed(run_seed, draw.stream, draw.step, draw.prompts[p].id, s),
        )
        for p in share
        for s in range(draw.samples)
    ]


def judge(rooms: EngineRooms, rollouts: Sequence[Rollout], prompts: Sequence[Prompt]) -> tuple[list[str], list[Verdict]]:
    """Text and verdict of each of this rank's rollouts, which may be none."""
    tokens = [rollout.tokens.tolist() for rollout in rollouts]
    texts = rooms.tokenizer.batch_decode(tokens, skip_special_tokens=True) if tokens else []  # transformers decodes [] to [""]
    return texts, rooms.grader.grade([(t, prompts[rollout.key[0]].ground_truth) for t, rollout in zip(texts, rollouts, strict=True)])


def grade(rooms: EngineRooms, rollouts: Sequence[Rollout], prompts: Sequence[Prompt]) -> list[list[Graded]]:
    """Verdicts of this rank's rollouts, gathered: for every prompt its graded samples, on every rank."""
    texts, verdicts = judge(rooms, rollouts, prompts)
    mine = [Graded(rollout=r, text=t, verdict=v) for r, t, v in zip(rollouts, texts, verdicts, strict=True)]
    groups: list[list[Graded]] = [[] for _ in prompts]
    for graded in rooms.world.gather(mine):
        groups[graded.rollout.key[0]].append(graded)
    return groups
