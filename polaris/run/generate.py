"""Prompts -> rollouts -> verdicts -> curated groups; further batches of prompts where too few groups teach anything."""

from __future__ import annotations

from pathlib import Path

from polaris.config.schema import RunConfig
from polaris.learn.curate import Curated, curate
from polaris.rollout.types import Sampling
from polaris.run.clock import Clock
from polaris.run.context import Rooms
from polaris.sampling.answers import stop_without_answers
from polaris.sampling.breaker import stop_if_grading_fails
from polaris.sampling.collect import Draw, Graded, draw_rollouts, grade
from polaris.types import Prompt


def generate(rooms: Rooms, step: int, clock: Clock) -> Curated:
    """The groups of one step. Nothing but the sampler's cursor has changed when this returns or raises.

    With algorithm.scarce = "generate", batches of prompts are drawn until algorithm.min_informative is met, algorithm.max_draws are
    drawn, or the epoch is over: a step never holds a prompt twice.

    Raises:
        GenerationInterrupted: a stop was requested.
        GradingFailed: more than 1 % of the responses killed their grading process.
        NoAnswers: no response of the first step has an answer.
    """
    config = rooms.config
    prompts: list[Prompt] = []
    groups: list[list[Graded]] = []
    draws = 0
    while True:
        draw = _draw(rooms, step)
        with clock.phase("rollout"):
            rollouts = draw_rollouts(rooms, draw)
        with clock.phase("reward"):
            groups += grade(rooms, rollouts, draw.prompts)
            prompts += draw.prompts
            stop_if_grading_fails(groups, prompts, Path(config.root) / config.name)
            if step == 1:
                stop_without_answers(rooms, groups, prompts, "step 1", draw.sampling.max_tokens)
            curated = curate(prompts, groups, config, rooms.successes, step)
        draws += 1
        again = curated.scarce and _may_draw_again(rooms, draws)
        if curated.scarce or not curated.trained:
            rooms.console.note(_scarcity(curated, rooms.config, step, again))
        if not again:
            return curated


def _may_draw_again(rooms: Rooms, draws: int) -> bool:
    algorithm = rooms.config.algorithm
    return algorithm.scarce == "generate" and draws < algorithm.max_draws and rooms.sampler.batches_left > 0


def _scarcity(curated: Curated, config: RunConfig, step: int, again: bool) -> str:
    outcome = "further prompts are drawn" if again else "trained all the same" if curated.trained else "no update, weights stay"
    wanted = f"algorithm.min_informative asks for {config.algorithm.min_informative * config.trainer.prompts_per_step:.3g}"
    return f"step {step}: {curated.informative} of {len(curated.drawn)} groups teach something ({wanted}): {outcome}"


def _draw(rooms: Rooms, step: int) -> Draw:
    rollout = rooms.config.rollout
    return Draw(
        prompts=[rooms.prompts[i] for i in rooms.sampler.next()],
        samples=rollout.samples_per_prompt,
        sampling=Sampling(temperature=rollout.temperature, max_tokens=rollout.max_response_tokens),
        stream="train",
        step=step,
    )
