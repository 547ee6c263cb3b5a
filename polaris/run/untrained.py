"""A run in which no step made an update: why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polaris.config.schema import RunConfig
from polaris.errors import RunFailed


class NothingTrained(RunFailed):
    """No step of the run made an update, so its weights are those that it began with."""


def why_untrained(records: Sequence[Mapping[str, Any]], config: RunConfig) -> str:
    """The reason and the remedy, from the records of all steps of a run without an update."""
    steps = [record for record in records if "groups/drawn" in record]
    drawn, informative, right, wrong, skipped = (
        int(sum(record[key] for record in steps))
        for key in ("groups/drawn", "groups/informative", "groups/all_right", "groups/all_wrong", "optimizer/skipped")
    )
    count = "1 step" if config.steps == 1 else f"{config.steps} steps"
    head = f"no update was made in {count}, and the weights are still those that the run began with"
    if skipped:
        return f"{head}: every loss or gradient ({skipped}) was not finite. Lower optimizer.lr, and look at the last rollouts of the report"
    if informative:
        return (
            f'{head}: algorithm.scarce = "skip" passed over every step, with {informative} of {drawn} groups informative and '
            f'algorithm.min_informative = {config.algorithm.min_informative:g}. Lower it, or set algorithm.scarce = "generate" or "train"'
        )
    return f"{head}: of {drawn} groups {right} were all right, {wrong} all wrong, and none had both. {_remedy(steps, right, wrong)}"


def _remedy(steps: Sequence[Mapping[str, Any]], right: int, wrong: int) -> str:
    unanswered, clipped = (_mean(steps, key) for key in ("reward/no_answer", "response/clip_ratio"))
    if right >= wrong:
        return "Train on harder prompts: `polaris difficulty` measures them; or raise rollout.temperature or rollout.samples_per_prompt"
    if clipped > 0.5:
        return f"{clipped:.0%} of the responses were cut off: raise rollout.max_response_tokens"
    if unanswered > 0.5:
        return (
            f"{unanswered:.0%} of the responses have no answer that can be graded: look at them in the report, then at "
            "reward.require_thinking, data.prompt_suffix and data.chat_template_options"
        )
    return "Train on easier prompts: `polaris difficulty` measures them; or raise rollout.samples_per_prompt"


def _mean(steps: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(record[key] for record in steps) / max(1, len(steps))
