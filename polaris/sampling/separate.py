"""Engines on ranks of their own: they draw all the time, a bounded number of steps ahead of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from polaris.distributed.travel import gather_scored
from polaris.rollout.types import GenerationInterrupted, Sampling
from polaris.sampling.carried import Started, requests_of, staleness
from polaris.sampling.draw import groups_of, wait_for
from polaris.sampling.guards import show_error
from polaris.sampling.remote import Job, RemoteEngines
from polaris.sampling.stage_source import StageSource
from polaris.types import Group, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ahead:
    """The prompts of step `step`, handed out; `after` is the sampler's state behind them, and `facts` what it says of them."""

    step: int
    started: list[Started]
    prompts: list[Prompt]
    job: Job
    after: dict[str, Any]
    facts: dict[str, float]


@dataclass(slots=True)
class _Pace:
    """The steps that are being drawn, the next one first, and the one that was trained on last."""

    ahead: deque[_Ahead] = field(default_factory=deque)
    taken: _Ahead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Separate(StageSource):
    """Requests of step s + rollout.max_staleness are handed out when step s begins. Each step takes all of its own responses, so none is
    chosen by how fast it was, and none is lost. The oldest weights that have drawn a token of them are max_staleness versions old."""

    pace: _Pace = field(default_factory=_Pace)

    @property
    def engines(self) -> RemoteEngines:
        """The engine of the context, which it must be."""
        assert isinstance(self.context.engine, RemoteEngines)
        return self.context.engine

    def next(self, step: int, temperature: float) -> list[Group]:
        """See `Colocated.next`."""
        config, places = self.context.config, self.context.config.trainer.prompts_per_step
        first = self.pace.ahead[-1].step + 1 if self.pace.ahead else step
        for later in range(first, min(step + config.rollout.max_staleness, self.last) + 1):
            self.pace.ahead.append(self._hand_out(later, temperature, []))
        groups = self._receive(taken := self.pace.ahead.popleft(), step)
        self.check(groups, step)
        started = list(taken.started)
        for _ in range(1, config.algorithm.max_draws):
            if len(self.prompts) - len(started) < places or not self.draws_again(groups, step):
                break
            groups += self._receive(taken := self._hand_out(step, temperature, started), step)
            started += taken.started
            self.check(groups, step)
        self.pace.taken = taken
        self.carried.generated = sum(len(scored.rollout.tokens) for group in groups for scored in group.rollouts)
        self.carried.facts = {"throughput/engines_busy": self.engines.busy, "rollout/engines_lost": self.engines.lost}
        self.carried.facts |= staleness(groups, self.context.engine.version)
        return groups

    def state(self) -> dict[str, Any]:
        """The sampler as it was behind the prompts of the last step: a resumed run hands out those of later steps again."""
        return self.sampler.state() if self.pace.taken is None else self.pace.taken.after

    @property
    def sampler_facts(self) -> dict[str, float]:
        """See `StageSource.sampler_facts`."""
        return {} if self.pace.taken is None else self.pace.taken.facts

    @property
    def sampling_seconds(self) -> float:
        """Engines draw for the whole step, whatever the trainers do."""
        return self.clock.total()

    def _hand_out(self, step: int, temperature: float, busy: Sequence[Started]) -> _Ahead:
        """Hand out the requests of a step, to other prompts than it has; first those that another placement has carried over, from their
        beginning."""
        config = self.context.config
        self.carried.begin_anew()
        left, self.carried.started = self.carried.started, ()
        started = [*left, *self.take(step, max(0, config.trainer.prompts_per_step - len(left)), [*busy, *left])]
        by_id = {prompt.id: prompt for prompt in self.prompts}
        prompts = [by_id[one.prompt_id] for one in started]
        sampling = Sampling(temperature=temperature, max_tokens=config.rollout.max_response_tokens)
        job = self.engines.jobs.post(prompts, requests_of(started, by_id, config), sampling, self.usual_lengths())
        return _Ahead(step=step, started=started, prompts=prompts, job=job, after=self.sampler.state(), facts=self.sampler.facts())

    def _receive(self, ahead: _Ahead, step: int) -> list[Group]:
        """The groups of what was handed out for `step`. Raises `GenerationInterrupted`."""
        assert ahead.step == step, (ahead.step, step)
        with self.clock.phase("rollout"):
            complete, arrived = wait_for(self.context, self.engines, ahead.job)
            if not complete:
                raise GenerationInterrupted
        with self.clock.phase("reward"):
            scored = gather_scored(arrived, self.context.world)
            show_error(self.context, ((one.rollout.prompt_id, one.verdict) for one in scored))
        return self.credited(groups_of(ahead.prompts, scored))
