"""avg@k on the held-out prompt set with the weights that the engine serves now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polaris.reward import no_answer
from polaris.rollout.types import Sampling
from polaris.run.clock import Clock
from polaris.run.context import Rooms
from polaris.run.record import length_facts, response_facts
from polaris.sampling.answers import answers_missing
from polaris.sampling.breaker import stop_if_grading_fails
from polaris.sampling.collect import Draw, draw_groups


def evaluate(rooms: Rooms, step: int) -> dict[str, Any]:
    """Record of one evaluation. Its seeds do not depend on the step, so evaluations differ by the weights alone.

    Raises:
        GenerationInterrupted: a stop was requested.
        GradingFailed: more than 1 % of the responses killed their grading process.
    """
    config, clock = rooms.config, Clock(rooms.console)
    temperature = config.eval.temperature or config.rollout.temperature
    draw = Draw(
        prompts=rooms.held_out,
        samples=config.eval.samples_per_prompt,
        sampling=Sampling(temperature=temperature, max_tokens=config.rollout.max_response_tokens),
        stream="eval",
        step=0,
    )
    with clock.phase("eval", in_step=False):
        groups = draw_groups(rooms, draw)
        stop_if_grading_fails(groups, rooms.held_out, Path(config.root) / config.name)
    everything = [graded for group in groups for graded in group]
    rewards = np.array([[graded.verdict.reward for graded in group] for group in groups])
    return {
        "step": step,
        "stage": rooms.stage,
        "eval/problems": len(groups),
        "eval/samples_per_prompt": config.eval.samples_per_prompt,
        "eval/temperature": temperature,
        "eval/accuracy": float(rewards.mean()),
        "eval/pass_at_k": float(rewards.max(axis=1).mean()),
        "eval/killed": float(np.mean([graded.verdict.lost for graded in everything])),
        **no_answer.metrics(answers_missing(everything), len(everything), "eval/no_answer"),
        **response_facts(everything, "eval/response"),
        **length_facts(everything, "eval/response", config.rollout.max_response_tokens),
        "seconds/eval": clock.seconds["eval"],
    }
