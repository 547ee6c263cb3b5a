"""Engines that share the trainer's devices: they sleep while it works, and wake with its new weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from polaris.algorithm.groups import is_scarce
from polaris.config.schema import RunConfig
from polaris.data.sampler import AnySampler
from polaris.sampling.carried import Carried, Started, facts_of, usable
from polaris.sampling.clock import Clock
from polaris.sampling.context import SamplingContext
from polaris.sampling.guards import stop_if_grading_fails, stop_without_answers
from polaris.sampling.step_draw import StepDraw
from polaris.sync.publish import SyncProof, publish
from polaris.types import Group, Prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocated:
    """The `GroupSource` of one stage. Between `next` and `publish` the engine sleeps; `sleep` puts it there before the first step.

    `credited(groups)` are the groups with what their rewards depend on beyond each response by itself (`polaris.learn.core`).
    `teaching(groups, step)` [P] bool says which groups have a gradient. With algorithm.scarce = "generate", further prompts are drawn
    while there are too few. `usual_lengths()` are the tokens that responses to known prompts have. At step `last` nothing is carried over.
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
    """What the step before has begun and not finished."""

    def next(self, step: int, temperature: float) -> list[Group]:
        """The groups of a step, sampled at `temperature`. The sampler's cursor may have moved if this raises, but nothing else.

        With algorithm.scarce = "generate", batches of prompts are drawn until algorithm.min_informative is met, algorithm.max_draws are
        drawn, or the epoch (with [curriculum]: the prompts) is over: a step never holds a prompt twice.

        Raises:
            GenerationInterrupted: a stop was requested.
            GradingFailed: more than 1 % of the responses killed their grading process.
            NoAnswers: no response of the first step has an answer.
        """
        config, rollout = self.context.config, self.context.config.rollout
        places, version = config.trainer.prompts_per_step, self.context.engine.version
        drawing = StepDraw(
            context=self.context,
            clock=self.clock,
            prompts={prompt.id: prompt for prompt in self.prompts},
            step=step,
            temperature=temperature,
            expected=self.usual_lengths(),
            teaches=lambda group: bool(self.teaching(self.credited([group]), step)[0]),
        )
        before, restarted = usable(self.carried.started, version, replace(rollout, temperature=temperature))
        begins = places if step >= self.last else config.prompts_begun
        started = [*before, *self._new(step, max(0, begins - len(before)), before)]
        drawn = drawing.draw(started, places if len(started) > places and step < self.last else None)
        left = drawn.left if rollout.carry_over else [Started(prompt_id=one.prompt_id, step=one.step) for one in drawn.left]
        groups, tokens = self.credited(drawn.groups), drawn.new_tokens
        self._check(groups, step)
        for _ in range(1, config.algorithm.max_draws):
            if len(self.prompts) - len(started) < places or not self._draws_again(groups, step):
                break
            new = self._new(step, places, started)
            started += new
            further = drawing.draw(new, None)
            groups, tokens = groups + self.credited(further.groups), tokens + further.new_tokens
            self._check(groups, step)
        self.sleep()
        facts = facts_of(groups, drawn.left, left, restarted, version) if config.prompts_begun > places or before else {}
        self.carried.started, self.carried.generated = tuple(left), tokens
        self.carried.facts = facts | {"throughput/engines_busy": drawn.busy}
        return groups

    def state(self) -> dict[str, Any]:
        """See `GroupSource.state`."""
        return self.sampler.state()

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> float:
        """See `GroupSource.publish`."""
        context = self.context
        publish(context.engine, weights, version)
        return self.proof.check(context.engine, version, context.world)

    def sleep(self) -> None:
        """Leave the devices to the trainer until `publish`."""
        self.context.engine.sleep()

    def _new(self, step: int, count: int, started: Sequence[Started]) -> list[Started]:
        """The next `count` prompts but those that are `started`."""
        busy = {one.prompt_id for one in started}
        without = {index for index, prompt in enumerate(self.prompts) if prompt.id in busy} if busy else set[int]()
        chosen = self.sampler.next(step, count, without) if count else []
        return [Started(prompt_id=self.prompts[index].id, step=step) for index in chosen]

    def _check(self, groups: Sequence[Group], step: int) -> None:
        config = self.context.config
        stop_if_grading_fails(groups, config.folder, writes=self.context.world.is_main)
        if step == 1:
            stop_without_answers(self.context, groups, "step 1", config.rollout.max_response_tokens)

    def _draws_again(self, groups: Sequence[Group], step: int) -> bool:
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
