"""What every source of a stage's groups has: the stage's prompts, the proof of its weights, and the guards over what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polaris.algorithm.groups import is_scarce
from polaris.config.schema import RunConfig
from polaris.data.sampler import AnySampler
from polaris.sampling.carried import Carried, Started
from polaris.sampling.clock import Clock
from polaris.sampling.context import SamplingContext
from polaris.sampling.guards import stop_if_grading_fails, stop_without_answers
from polaris.sync.publish import SyncProof, publish
from polaris.types import Group, Prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSource:
    """The `GroupSource` of one stage, but for `next`. `sleep` leaves the devices to the trainer before the first step.

    `credited(groups)` are the groups with what their rewards depend on beyond each response by itself (`polaris.learn.core`).
    `teaching(groups, step)` [P] bool says which groups have a gradient. With algorithm.scarce = "generate", further prompts are drawn
    while there are too few. `usual_lengths()` are the tokens that responses to known prompts have. `last` is the stage's last step.
    """

    context: SamplingContext
    clock: Clock
    prompts: tuple[Prompt, ...]
    sampler: AnySampler
    proof: SyncProof
    credited: Callable[[Sequence[Group]], list[Group]]
    teaching: Callable[[Sequence[Group], int], np.ndarray]
    usual_lengths: Callable[[], Mapping[str, float]]
    last: int
    carried: Carried = field(default_factory=Carried)
    """What the step before has begun and not finished, and metrics of it."""

    def next(self, step: int, temperature: float) -> list[Group]:
        """See `GroupSource.next`."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """See `GroupSource.state`."""
        return self.sampler.state()

    @property
    def sampler_facts(self) -> dict[str, float]:
        """Metrics of how the prompts of the last step were chosen."""
        return self.sampler.facts()

    @property
    def sampling_seconds(self) -> float:
        """Time that the last step's responses took to draw."""
        return self.clock.seconds["rollout"]

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> float:
        """See `GroupSource.publish`."""
        context = self.context
        publish(context.engine, weights, version)
        return self.proof.check(context.engine, version, context.world)

    def sleep(self) -> None:
        """Leave the devices to the trainer until `publish`."""
        self.context.engine.sleep()

    def take(self, step: int, count: int, started: Sequence[Started]) -> list[Started]:
        """The next `count` prompts but those that are `started`."""
        busy = {one.prompt_id for one in started}
        without = {index for index, prompt in enumerate(self.prompts) if prompt.id in busy} if busy else set[int]()
        chosen = self.sampler.next(step, count, without) if count else []
        return [Started(prompt_id=self.prompts[index].id, step=step) for index in chosen]

    def check(self, groups: Sequence[Group], step: int) -> None:
        """Stop a run whose responses cannot be graded, or of whose first step none has an answer."""
        config = self.context.config
        stop_if_grading_fails(groups, config.folder, writes=self.context.world.is_main)
        if step == 1:
            stop_without_answers(self.context, groups, "step 1", config.rollout.max_response_tokens)

    def draws_again(self, groups: Sequence[Group], step: int) -> bool:
        """Whether a step that has `groups` draws a further batch."""
        config = self.context.config
        if config.algorithm.scarce != "generate" or not self.sampler.batches_left:
            return False
        found = int(self.teaching(groups, step).sum())
        if not is_scarce(found, config.trainer.prompts_per_step, config.algorithm.min_informative):
            return False
        self.context.console.note(scarcity(found, len(groups), config, step, "further prompts are drawn"))
        return True


def scarcity(informative: int, drawn: int, config: RunConfig, step: int, outcome: str) -> str:
    """How many of a step's groups have a gradient, and what follows, for the console."""
    least = config.algorithm.min_informative * config.trainer.prompts_per_step
    wanted = f" (algorithm.min_informative asks for {least:.3g})" if least else ""
    return f"step {step}: {informative} of {drawn} groups teach something{wanted}: {outcome}"
