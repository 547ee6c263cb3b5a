"""Engines that share the trainer's devices: they sleep while it works, and wake with its new weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polaris.sampling.carried import Started, facts_of, usable
from polaris.sampling.stage_source import StageSource
from polaris.sampling.step_draw import StepDraw
from polaris.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocated(StageSource):
    """Between `next` and `publish` the engine sleeps. At step `last` nothing is carried over."""

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
        started = [*before, *self.take(step, max(0, begins - len(before)), before)]
        drawn = drawing.draw(started, places if len(started) > places and step < self.last else None)
        left = drawn.left if rollout.carry_over else [Started(prompt_id=one.prompt_id, step=one.step) for one in drawn.left]
        groups, tokens = self.credited(drawn.groups), drawn.new_tokens
        self.check(groups, step)
        for _ in range(1, config.algorithm.max_draws):
            if len(self.prompts) - len(started) < places or not self.draws_again(groups, step):
                break
            new = self.take(step, places, started)
            started += new
            further = drawing.draw(new, None)
            groups, tokens = groups + self.credited(further.groups), tokens + further.new_tokens
            self.check(groups, step)
        self.sleep()
        facts = facts_of(groups, drawn.left, left, restarted, version) if config.prompts_begun > places or before else {}
        self.carried.started, self.carried.generated = tuple(left), tokens
        self.carried.facts = facts | {"throughput/engines_busy": drawn.busy}
        return groups
