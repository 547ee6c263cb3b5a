"""Prompts -> scored rollouts: one queue over all engines, graded as they end, then everybody's on every rank."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from polaris.distributed import watch
from polaris.distributed.travel import gather_scored
from polaris.rollout.engine import is_stepwise
from polaris.rollout.types import GenerationInterrupted, Progress, RolloutRequest, Sampling, Stepwise, request_of, request_seed
from polaris.sampling.board import Board, Enough
from polaris.sampling.context import SamplingContext
from polaris.sampling.episode import Episodes
from polaris.sampling.grading import Grading
from polaris.sampling.guards import show_error
from polaris.sampling.line import Line
from polaris.sampling.queue import Queue, longest_first
from polaris.sampling.remote import Job, RemoteEngines
from polaris.types import Group, Prompt, Rollout, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which samples to draw: of each prompt those numbered from `first` on. A sample's seed is a function of the run's seed, `stream`,
    `step`, prompt id and sample number. `expected` are the tokens that a response to a prompt usually has, where that is known."""

    prompts: Sequence[Prompt]
    samples: int
    sampling: Sampling
    stream: str
    step: int
    first: int = 0
    expected: Mapping[str, float] = field(default_factory=dict)

    def requests(self, seed: int) -> list[RolloutRequest]:
        """Of all engines together, in the order of the prompts."""
        numbers = range(self.first, self.first + self.samples)
        return [request_of(prompt, sample, seed, self.stream, self.step) for prompt in self.prompts for sample in numbers]


def draw_groups(context: SamplingContext, draw: Draw) -> list[Group]:
    """The group of every prompt, on every rank; texts and arrays are on rank 0 alone. Raises `GenerationInterrupted`."""
    with sample(context, draw, draw.requests(context.config.seed)) as sampled:
        if sampled.interrupted:
            raise GenerationInterrupted
        return groups_of(draw.prompts, sampled.scored())


def groups_of(prompts: Sequence[Prompt], scored: Sequence[ScoredRollout]) -> list[Group]:
    """The group of each prompt, its rollouts in the order of their samples."""
    found: dict[str, list[ScoredRollout]] = {prompt.id: [] for prompt in prompts}
    for one in sorted(scored, key=lambda one: one.rollout.sample):
        found[one.rollout.prompt_id].append(one)
    return [Group(prompt=prompt, rollouts=tuple(found[prompt.id])) for prompt in prompts]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the engines have drawn. `cut` are this rank's responses that were cut off, `interrupted` whether a stop was requested, and
    `busy` the share of the time, from the first engine's start to the last one's end, that engines were at work, in the mean."""

    cut: list[Rollout]
    interrupted: bool
    busy: float
    _context: SamplingContext
    _graded: Callable[[], list[ScoredRollout]]

    def scored(self) -> list[ScoredRollout]:
        """The responses of all ranks that have ended, graded, on every rank; see `gather_scored`. Waits for what is still being graded."""
        watch.mark("verdicts of this rank's responses")
        everything = gather_scored(self._graded(), self._context.world)
        show_error(self._context, ((one.rollout.prompt_id, one.verdict) for one in everything))
        return everything


@contextmanager
def sample(
    context: SamplingContext,
    draw: Draw,
    requests: Sequence[RolloutRequest],
    *,
    first: Collection[str] = (),
    enough: Enough | None = None,
    whole: Callable[[Rollout], Rollout] = lambda rollout: rollout,
    on_ended: Callable[[Rollout], None] = lambda rollout: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Sampled]:
    """Draw `requests`, which are the same on every rank, on all engines, those of the prompts in `first` before the others; to their end,
    or until there is `enough`.

    `whole` gives the response of which a rollout is the end. `on_ended` hears of each response of this rank's engine, `on_progress` of
    that engine's progress. Of ranks that share an engine only the first one has responses, and calls `on_ended`.
    """
    if isinstance(context.engine, RemoteEngines):
        assert enough is None, "an engine on a rank of its own cuts nothing off"
        yield _drawn_remotely(context, context.engine, draw, requests, on_ended, on_progress)
        return
    world, parallel = context.world, context.config.rollout.tensor_parallel
    lanes, lane, leads = world.size // parallel, world.rank // parallel, world.rank % parallel == 0
    store, name = world.store(), f"draw/{next(context.draws)}"
    prompts = {prompt.id: prompt for prompt in draw.prompts}
    outstanding = dict.fromkeys(prompts, 0) | Counter(request.prompt_id for request in requests)
    queue = Queue(longest_first(requests, draw.expected, first), draw.expected, lanes, store, name)
    board = Board(outstanding, prompts, store, name, enough)
    with Grading(context, prompts, draw.sampling.max_tokens, board.add) as grading:
        drawing = _Drawing(context, draw, queue, board, grading, whole, on_ended, on_progress, lane, lanes, leads, len(requests))
        cut, interrupted, start = list[Rollout](), False, time.perf_counter()
        try:
            cut = drawing.run()
        except GenerationInterrupted:
            interrupted = True
            queue.close()  # or another engine would draw what this one was asked to leave
        own = time.perf_counter() - start
        interrupted = world.any(interrupted)
        shares = world.gather([own / (time.perf_counter() - start)])
        yield Sampled(cut if leads else [], interrupted, sum(shares) / len(shares), context, grading.scored)
    if world.is_main and world.size > 1:
        for key in (*queue.keys, *board.keys):
            store.delete_key(key)


def _drawn_remotely(
    context: SamplingContext,
    engines: RemoteEngines,
    draw: Draw,
    requests: Sequence[RolloutRequest],
    on_ended: Callable[[Rollout], None],
    on_progress: Callable[[Progress], None],
) -> Sampled:
    """Draw all on engines that have ranks of their own. The first trainer hears of each response."""
    job = engines.jobs.post(draw.prompts, requests, draw.sampling, draw.expected, urgent=True)
    complete, arrived = wait_for(context, engines, job, on_ended, on_progress)
    return Sampled([], not complete, engines.busy, context, lambda: arrived)


def wait_for(
    context: SamplingContext,
    engines: RemoteEngines,
    job: Job,
    on_ended: Callable[[Rollout], None] = lambda rollout: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[bool, list[ScoredRollout]]:
    """Whether all of the job has come, rather than a stop was requested; and what has come, on the first trainer."""
    left = Counter(request.prompt_id for request in job.asked)
    groups, arrived, tokens = len(left), list[ScoredRollout](), 0

    def hear(scored: ScoredRollout) -> None:
        nonlocal tokens
        arrived.append(scored)
        tokens += len(scored.rollout.tokens)
        left[scored.rollout.prompt_id] -= 1
        watch.mark(f"{watch.WAITS}the engines: {len(arrived)} of {len(job.asked)} responses have come")
        on_ended(scored.rollout)

    def show() -> None:
        complete = sum(not count for count in left.values())
        context.console.progress(complete, groups, tokens)
        on_progress(Progress(finished=len(arrived), total=len(job.asked), tokens=tokens))

    return engines.wait(job, hear, show), arrived


@dataclass(slots=True)
class _Drawing:
    """This rank's part in one draw."""

    context: SamplingContext
    draw: Draw
    queue: Queue
    board: Board
    grading: Grading
    whole: Callable[[Rollout], Rollout]
    on_ended: Callable[[Rollout], None]
    on_progress: Callable[[Progress], None]
    lane: int
    lanes: int
    leads: bool
    requests: int
    _ended: int = 0
    _tokens: int = 0

    def run(self) -> list[Rollout]:
        """Draw this engine's part; what was cut off. Raises `GenerationInterrupted`."""
        engine, sampling = self.context.engine, self.draw.sampling
        if self.context.episode is None and is_stepwise(engine):
            return self._line(engine).run(sampling)
        requests = self.queue.lane(self.lane)
        if self.context.episode is None:
            self._generate(requests, sampling, self._hear if self.leads else None)
        else:
            self._episodes().play(requests, self._generate)
        return []

    def _line(self, engine: Stepwise) -> Line:
        return Line(
            engine=engine,
            queue=self.queue,
            lane=self.lane,
            lanes=self.lanes,
            most=self.context.config.rollout.max_concurrent,
            leads=self.leads,
            peers=self.context.peers,
            should_stop=self.context.stop.requested,
            should_end=self._has_enough,
            on_ended=self._hear,
            on_progress=lambda: self._show(Progress(finished=self._ended, total=self.requests, tokens=self._tokens + engine.tokens)),
        )

    def _has_enough(self, ended: bool) -> bool:
        """With one engine the answer must not depend on how fast a response is graded, so it waits for those that could matter."""
        if self.lanes == 1 and ended and self.board.could_have_enough:
            self.grading.wait()
        return self.board.has_enough

    def _hear(self, rollout: Rollout) -> None:
        self._ended += 1
        self._tokens += len(rollout.tokens)
        if self.leads:
            self.board.ended(rollout)
            self.on_ended(rollout)
            self.grading.add(self.whole(rollout))

    def _show(self, progress: Progress) -> None:
        self.grading.check()
        groups, tokens = self.board.complete, progress.tokens * self.lanes
        watch.mark(f"rollouts, {groups} of {self.board.groups} groups complete")
        self.context.console.progress(groups, self.board.groups, tokens)
        self.on_progress(progress)

    def _generate(self, requests: Sequence[RolloutRequest], sampling: Sampling, heard: Callable[[Rollout], None] | None) -> list[Rollout]:
        context = self.context
        return context.engine.generate(requests, sampling, on_progress=self._show, should_stop=context.stop.requested, on_finished=heard)

    def _episodes(self) -> Episodes:
        context, draw = self.context, self.draw

        def seed(request: RolloutRequest, turn: int) -> int:
            return request_seed(context.config.seed, f"{draw.stream}/turn-{turn}", draw.step, request.prompt_id, request.sample)

        prompts = {prompt.id: prompt for prompt in draw.prompts}
        return Episodes(context=context, prompts=prompts, sampling=draw.sampling, seed=seed, first=self.leads, on_finished=self._hear)
