"""Engines that share the trainer's devices: they sleep while it works, and wake with its new weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polaris.algorithm.groups import is_scarce
from polaris.config.schema import RunConfig
from polaris.data.sampler import AnySampler
from polaris.rollout.types import Sampling
from polaris.sampling.clock import Clock
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, draw_rollouts, score
from polaris.sampling.guards import stop_if_grading_fails, stop_without_answers
from polaris.sync.publish import SyncProof, publish
from polaris.types import Group, Prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocated:
    """The `GroupSource` of one stage. Between `next` and `publish` the engine sleeps; `sleep` puts it there before the first step.

    `credited(groups)` are the groups with what their rewards depend on beyond each response by itself (`polaris.learn.core`).
    `informative(groups, step)` counts the groups with a gradient. With algorithm.scarce = "generate", further prompts are drawn while it
    is too small.
    """

    context: SamplingContext
    clock: Clock
    prompts: tuple[Prompt, ...]
    sampler: AnySampler
    proof: SyncProof
    credited: Callable[[Sequence[Group]], list[Group]]
    informative: Callable[[Sequence[Group], int], int]

    def next(self, step: int, temperature: float) -> list[Group]:
        """The groups of a step, sampled at `temperature`. Nothing but the sampler's cursor has changed when this returns or raises.

        With algorithm.scarce = "generate", batches of prompts are drawn until algorithm.min_informative is met, algorithm.max_draws are
        drawn, or the epoch (with [curriculum]: the prompts) is over: a step never holds a prompt twice.

        Raises:
            GenerationInterrupted: a stop was requested.
            GradingFailed: more than 1 % of the responses killed their grading process.
            NoAnswers: no response of the first step has an answer.
        """
        groups: list[Group] = []
        for number in range(1, self.context.config.algorithm.max_draws + 1):
            groups += self.credited(self._draw(step, temperature))
            self._check(groups, step)
            if not self._draws_again(groups, step, number):
                break
        self.sleep()
        return groups

    def state(self) -> dict[str, int]:
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

    def _draw(self, step: int, temperature: float) -> list[Group]:
        rollout = self.context.config.rollout
        draw = Draw(
            prompts=[self.prompts[index] for index in self.sampler.next(step)],
            samples=rollout.samples_per_prompt,
            sampling=Sampling(temperature=temperature, max_tokens=rollout.max_response_tokens),
            stream="train",
            step=step,
        )
        with self.clock.phase("rollout"):
            rollouts = draw_rollouts(self.context, draw)
        with self.clock.phase("reward"):
            return score(self.context, rollouts, draw.prompts, draw.sampling.max_tokens)

    def _check(self, groups: Sequence[Group], step: int) -> None:
        config = self.context.config
        stop_if_grading_fails(groups, config.folder, writes=self.context.world.is_main)
        if step == 1:
            stop_without_answers(self.context, groups, "step 1", config.rollout.max_response_tokens)

    def _draws_again(self, groups: Sequence[Group], step: int, drawn: int) -> bool:
        config = self.context.config
        if config.algorithm.scarce != "generate" or drawn == config.algorithm.max_draws or not self.sampler.batches_left:
            return False
        found = self.informative(groups, step)
        if not is_scarce(found, config.trainer.prompts_per_step, config.algorithm.min_informative):
            return False
        self.context.console.note(scarcity(found, len(groups), config, step, "further prompts are drawn"))
        return True


def scarcity(informative: int, drawn: int, config: RunConfig, step: int, outcome: str) -> str:
    """How many of a step's groups have a gradient, and what follows, for the console."""
    least = config.algorithm.min_informative * config.trainer.prompts_per_step
    wanted = f" (algorithm.min_informative asks for {least:.3g})" if least else ""
    return f"step {step}: {informative} of {drawn} groups teach something{wanted}: {outcome}"
