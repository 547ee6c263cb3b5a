"""avg@k on the held-out prompt set with the weights that the engine serves now."""

from __future__ import annotations

from typing import Any

import numpy as np

from polaris.rollout.types import Sampling
from polaris.trainer.clock import Clock
from polaris.trainer.collect import Draw, grade
from polaris.trainer.record import response_facts
from polaris.trainer.rooms import Rooms
from polaris.trainer.step import draw_rollouts


def evaluate(rooms: Rooms, step: int) -> dict[str, Any]:
    """Record of one evaluation. Its seeds do not depend on the step, so evaluations differ by the weights alone.

    Raises:
        GenerationInterrupted: a stop was requested.
    """
    config, clock = rooms.config, Clock(rooms.console)
    draw = Draw(
        prompts=rooms.held_out,
        samples=config.eval.samples_per_prompt,
        sampling=Sampling(temperature=config.eval.temperature or config.rollout.temperature, max_tokens=config.rollout.max_response_tokens),
        stream="eval",
        step=0,
        run_seed=config.seed,
    )
    with clock.phase("eval"):
        groups = grade(draw_rollouts(rooms, draw), rooms.held_out, rooms.tokenizer, rooms.grader, rooms.world)
    rewards = np.array([[graded.verdict.reward for graded in group] for group in groups])
    return {
        "step": step,
        "eval/accuracy": float(rewards.mean()),
        "eval/pass_at_k": float(rewards.max(axis=1).mean()),
        **response_facts([graded for group in groups for graded in group], "eval/response"),
        "seconds/eval": clock.seconds["eval"],
    }
