"""What concerns two sections at once, checked before any weight is read."""

from __future__ import annotations

from polaris.config.schema import RunConfig
from polaris.errors import Refused


def check_model_limits(config: RunConfig, max_positions: int) -> None:
    """Prompt and response must fit the model's positions."""
    prompt, response = config.data.max_prompt_tokens, config.longest_response
    shorter = [("max_response_tokens", max_positions - prompt), ("data.max_prompt_tokens", max_positions - response)]
    fits = ", ".join(f"{name} to {most} or less" for name, most in shorter if most > 0) or "both to less"
    if prompt + response > max_positions:
        raise Refused(
            f"data.max_prompt_tokens + the longest max_response_tokens = {prompt} + {response} exceeds the model's "
            f"{max_positions} positions; set {fits}, or rope.max_positions to {prompt + response} to go beyond"
        )


def check_batch(config: RunConfig, world_size: int) -> None:
    """Ranks, engines, prompts and samples must divide into each other."""
    parallel = config.rollout.tensor_parallel
    if world_size % parallel != 0:
        raise Refused(f"{world_size} ranks do not divide into engines of rollout.tensor_parallel = {parallel} ranks; change one of them")
    engines, prompts = world_size // parallel, config.trainer.prompts_per_step
    if prompts % engines != 0:
        raise Refused(f"trainer.prompts_per_step = {prompts} does not divide over {engines} engines; set it to a multiple of {engines}")
    if config.rollout.samples_per_prompt <= 1:
        raise Refused("rollout.samples_per_prompt = 1 leaves nothing to compare within a group; set it to 2 or more")
