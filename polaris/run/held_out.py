"""avg@k on the held-out prompt set with the weights that the engine serves now."""

from __future__ import annotations

from typing import Any

import numpy as np

from polaris.reward import no_answer
from polaris.reward.functions import named
from polaris.rollout.types import Sampling
from polaris.run.context import TrainContext
from polaris.run.record import length_facts, level_facts, response_facts, reward_parts, set_facts
from polaris.sampling.draw import Draw, draw_groups
from polaris.sampling.guards import answers_missing, stop_if_grading_fails


def evaluate(context: TrainContext, step: int) -> dict[str, Any]:
    """Evaluate once and return the record. Seeds do not depend on the step, so evaluations differ only by the weights.

    Raises:
        GenerationInterrupted: a stop was requested.
        GradingFailed: more than 1 % of the responses killed their grading process.
    """
    config, clock = context.config, context.source.clock
    temperature = config.rollout.temperature if config.eval.temperature is None else config.eval.temperature
    draw = Draw(
        prompts=context.held_out,
        samples=config.eval.samples_per_prompt,
        sampling=Sampling(temperature=temperature, max_tokens=config.rollout.max_response_tokens),
        stream="eval",
        step=0,
        expected=context.statistics.usual_lengths(),
    )
    clock.restart()
    with clock.phase("eval", in_step=False):
        groups = draw_groups(context.sampling, draw)
        stop_if_grading_fails(groups, config.folder, writes=context.sampling.world.is_main)
    everything = [scored for group in groups for scored in group.rollouts]
    solved = np.array([[float(scored.verdict.kind == "correct") for scored in group.rollouts] for group in groups])
    return {
        "step": step,
        "stage": context.stage,
        "eval/problems": len(groups),
        "eval/samples_per_prompt": config.eval.samples_per_prompt,
        "eval/temperature": temperature,
        "eval/accuracy": float(solved.mean()),
        "eval/pass_at_k": float(solved.max(axis=1).mean()),
        "eval/killed": float(np.mean([scored.verdict.lost for scored in everything])),
        **reward_parts(everything, named(config.reward), "eval/reward"),
        **no_answer.metrics(answers_missing(everything), len(everything), "eval/no_answer"),
        **set_facts(groups, "eval/data"),
        **level_facts(groups, "eval/level"),
        **response_facts(everything, "eval/response"),
        **length_facts(everything, "eval/response", config.rollout.max_response_tokens),
        "seconds/eval": clock.seconds["eval"],
    }
