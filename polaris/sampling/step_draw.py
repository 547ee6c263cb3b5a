"""The responses of a step: to prompts that it begins, and to those that the step before has left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from polaris.rollout.types import GenerationInterrupted, Sampling
from polaris.sampling.board import Enough
from polaris.sampling.carried import Started, divide, due, joined, requests_of
from polaris.sampling.clock import Clock
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, groups_of, sample
from polaris.types import Group, Prompt, Rollout, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDraw:
    """How a step draws. `teaches` says whether a complete group has a gradient.

    The step ends when `places` groups that teach are complete; without a number, when all are.
    """

    context: SamplingContext
    clock: Clock
    prompts: Mapping[str, Prompt]
    step: int
    temperature: float
    expected: Mapping[str, float]
    teaches: Callable[[Group], bool]

    def draw(self, started: Sequence[Started], places: int | None) -> Drawn:
        """Draw what is missing of the `started` prompts. Raises `GenerationInterrupted`."""
        config, samples = self.context.config, self.context.config.rollout.samples_per_prompt
        begun = {(rollout.prompt_id, rollout.sample): rollout for one in started for rollout in one.begun}

        def whole(rollout: Rollout) -> Rollout:
            before = begun.get((rollout.prompt_id, rollout.sample))
            return rollout if before is None else joined(before, rollout)

        draw = Draw(
            prompts=[self.prompts[one.prompt_id] for one in started],
            samples=samples,
            sampling=Sampling(temperature=self.temperature, max_tokens=config.rollout.max_response_tokens),
            stream="train",
            step=self.step,
            expected=self.expected,
        )
        requests = requests_of(started, self.prompts, config)
        first = {one.prompt_id for one in started if one.step < self.step}
        with ExitStack() as stack:
            with self.clock.phase("rollout"):
                sampled = stack.enter_context(
                    sample(self.context, draw, requests, first=first, enough=self._enough(started, places), whole=whole)
                )
                if sampled.interrupted:
                    raise GenerationInterrupted
            with self.clock.phase("reward"):
                scored = sampled.scored()
                cut = self.context.world.gather([whole(rollout) for rollout in sampled.cut])
        now = {(rollout.prompt_id, rollout.sample): rollout for rollout in [*(one.rollout for one in scored), *cut]}
        kept = [rollout for key, rollout in begun.items() if key not in now]
        new = sum(len(rollout.tokens) - rollout.read for rollout in [*now.values(), *kept]) - sum(len(one.tokens) for one in begun.values())
        taken, left = divide(_grown(started, scored, [*cut, *kept]), samples, self._teaches, places)
        return Drawn(groups=[self._group(one) for one in taken], left=left, new_tokens=new, busy=sampled.busy)

    def _enough(self, started: Sequence[Started], places: int | None) -> Enough | None:
        if places is None:
            return None
        version, most = self.context.engine.version, self.context.config.rollout.max_staleness
        before = {one.prompt_id: one.scored for one in started if one.scored}
        return Enough(groups=places, teaches=self.teaches, due=due(started, self.step, version, most), before=before)

    def _group(self, one: Started) -> Group:
        (group,) = groups_of([self.prompts[one.prompt_id]], one.scored)
        return group

    def _teaches(self, one: Started) -> bool:
        return self.teaches(self._group(one))


def _grown(started: Sequence[Started], scored: Sequence[ScoredRollout], begun: Sequence[Rollout]) -> list[Started]:
    """The prompts with the responses that have ended since, and all that are begun."""
    ended, running = defaultdict[str, list[ScoredRollout]](list), defaultdict[str, list[Rollout]](list)
    for one in scored:
        ended[one.rollout.prompt_id].append(one)
    for rollout in begun:
        running[rollout.prompt_id].append(rollout)
    return [replace(one, scored=(*one.scored, *ended[one.prompt_id]), begun=tuple(running[one.prompt_id])) for one in started]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The groups that a step takes, what is `left` for the next one, the tokens that the policy has drawn, and `Sampled.busy`."""

    groups: list[Group]
    left: list[Started]
    new_tokens: int
    busy: float
