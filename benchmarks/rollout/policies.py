"""Steps of a run whose engines sleep while the trainer works, simulated: what a step begins, takes and carries over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from benchmarks.rollout.draws import Draw, Share, lanes_of
from benchmarks.rollout.engines import Engine, Hardware, Response
from benchmarks.rollout.lengths import Lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a step draws. `history`: expected lengths of prompts are known. `oversample`, `carry` and `max_staleness` are those of
    `rollout`. `chunk`: an engine of several takes 1/chunk of what it may run before each step. `ratio`: it helps the fullest lane only
    while it runs fewer than so many times what is left there."""

    name: str
    share: Share = "queue"
    history: bool = False
    oversample: float = 1.0
    carry: bool = False
    max_staleness: int = 4
    chunk: int = 8
    ratio: float = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """So many steps of so many prompts on these engines. `silent`: one in so many prompts teaches nothing; 0 for none."""

    lengths: Lengths
    hardware: Hardware
    engines: int
    prompts: int
    samples: int
    steps: int
    silent: int = 0
    prompt_tokens: int = 100

    def teaches(self, prompt: int) -> bool:
        return not self.silent or prompt % self.silent != self.silent - 1


@dataclass(slots=True)
class Started:
    """A prompt since step `step`, counted from 0, in which it was begun."""

    prompt: int
    responses: list[Response]
    step: int

    @property
    def complete(self) -> bool:
        return all(one.drawn == one.length for one in self.responses)

    @property
    def oldest(self) -> int | None:
        """Version of its oldest token."""
        return min((one.parts[0][0] for one in self.responses if one.parts), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step did. Times in picoseconds; `engines` are those at which each engine was done; `claims` as `Draw.taken`."""

    duration: int
    engines: tuple[int, ...]
    drawn: int
    """Tokens."""
    dropped: int
    taken: tuple[tuple[int, tuple[tuple[tuple[int, int], ...], ...]], ...]
    """Each prompt with the parts of its responses, as (version, tokens)."""
    left: tuple[int, ...]
    claims: tuple[tuple[tuple[int, int, int], ...], ...]

    def lengths(self) -> list[int]:
        """Tokens of the responses that it takes."""
        return [sum(tokens for _, tokens in parts) for _, responses in self.taken for parts in responses]


@dataclass(slots=True)
class Run:
    """The steps of a workload under a policy. At the last one nothing is carried over."""

    policy: Policy
    load: Workload
    _before: list[Started] = field(default_factory=list)
    _next: int = 0

    def steps(self) -> Iterator[Step]:
        for version in range(self.load.steps):
            yield self._step(version, last=version == self.load.steps - 1)

    def _step(self, version: int, last: bool) -> Step:
        policy, load = self.policy, self.load
        before = [self._usable(one, version) for one in self._before]
        begins = load.prompts if last else ceil(round(policy.oversample * load.prompts, 6))
        started = [*before, *(self._begin(version) for _ in range(begins - len(before)))]
        places = load.prompts if len(started) > load.prompts and not last else None
        already = sum(one.drawn for group in started for one in group.responses)
        draw = self._draw(started, len(before), version, places)
        duration = draw.run()
        drawn = sum(one.drawn for group in started for one in group.responses) - already
        taken, left = _divide(started, load, places)
        kept = left if policy.carry else [Started(one.prompt, [], one.step) for one in left]
        self._before = kept
        return Step(
            duration=duration,
            engines=tuple(draw.stopped),
            drawn=drawn,
            dropped=0 if policy.carry else sum(one.drawn for group in left for one in group.responses),
            taken=tuple((one.prompt, tuple(tuple(response.parts) for response in one.responses)) for one in taken),
            left=tuple(one.prompt for one in left),
            claims=tuple(map(tuple, draw.taken)),
        )

    def _draw(self, started: Sequence[Started], before: int, version: int, places: int | None) -> Draw:
        policy, load = self.policy, self.load
        groups = {one.prompt: one for one in started}
        board = _Board(groups, load, places, self._due(started, version) if places is not None else set())
        first = {one.prompt for one in started[:before]}
        expected = {one.prompt: load.lengths.expected(one.prompt) for one in started} if policy.history else {}
        missing = [response for one in started for response in one.responses if response.drawn < response.length]
        missing.sort(key=lambda one: (one.prompt not in first, -expected.get(one.prompt, 0.0)))
        alone = policy.share != "queue" or load.engines == 1
        return Draw(
            engines=[Engine(load.hardware, version) for _ in range(load.engines)],
            lanes=lanes_of(missing, load.engines, policy.share, lambda one: expected.get(one.prompt, 0.0)),
            chunk=load.hardware.most if alone else max(1, load.hardware.most // policy.chunk),
            helps=policy.ratio if policy.share == "queue" else 0,
            ended=board.ended,
            enough=board.enough,
        )

    def _begin(self, version: int) -> Started:
        prompt, self._next = self._next, self._next + 1
        return fresh(self.load, prompt, version)

    def _usable(self, one: Started, version: int) -> Started:
        """As far as it is drawn, what has no token yet under the new weights; all anew where it has a token that is too old."""
        oldest = one.oldest
        anew = replace(fresh(self.load, one.prompt, version), step=one.step)
        if oldest is None or version - oldest > self.policy.max_staleness:
            return anew
        return replace(anew, responses=[old if old.parts else new for old, new in zip(one.responses, anew.responses, strict=True)])

    def _due(self, started: Sequence[Started], version: int) -> set[int]:
        most = self.policy.max_staleness
        old = {one.prompt for one in started if one.oldest is not None and version + 1 - one.oldest > most}
        return old | {one.prompt for one in started if version - one.step >= most}


def fresh(load: Workload, prompt: int, version: int) -> Started:
    """A prompt that begins under the weights of `version`."""
    lengths = load.lengths.drawn(prompt, version)
    return Started(prompt, [Response(prompt, sample, length, load.prompt_tokens) for sample, length in enumerate(lengths)], version)


class _Board:
    """When the step has enough: so many complete groups that teach, and all that are due."""

    def __init__(self, groups: dict[int, Started], load: Workload, places: int | None, due: set[int]) -> None:
        self._missing = {prompt: sum(one.drawn < one.length for one in group.responses) for prompt, group in groups.items()}
        self._load, self._places, self._due = load, places, due
        complete = [prompt for prompt, missing in self._missing.items() if not missing]
        self._full = sum(load.teaches(prompt) for prompt in complete)
        self._due = due.difference(complete)

    def ended(self, response: Response) -> None:
        self._missing[response.prompt] -= 1
        if not self._missing[response.prompt]:
            self._full += self._load.teaches(response.prompt)
            self._due.discard(response.prompt)

    def enough(self) -> bool:
        return self._places is not None and self._full >= self._places and not self._due


def _divide(started: Sequence[Started], load: Workload, places: int | None) -> tuple[list[Started], list[Started]]:
    """The complete groups, of those that teach the first `places`; the others are left."""
    taken, left, full = list[Started](), list[Started](), 0
    for one in started:
        teaches = one.complete and load.teaches(one.prompt)
        (taken if one.complete and not (teaches and places is not None and full >= places) else left).append(one)
        full += teaches
    return taken, left


def ideal(load: Workload, versions: Sequence[Step]) -> tuple[float, float]:
    """Seconds a step, at least, for the responses that the steps took: (if no response is waited for, if those of a step end in it).

    All engines always run as many sequences as they may and as fit into memory. Alone in an engine, the longest response takes its time.
    """
    hardware = replace(load.hardware, prefill=0)
    work, alone = [], []
    for step in versions:
        lengths, read = step.lengths(), load.prompt_tokens
        context = sum(hardware.duration(0, read, length) - length * hardware.step for length in lengths) // hardware.token
        context += sum(length * (length - 1) // 2 for length in lengths)
        rounds = max(sum(lengths) / hardware.most, context / hardware.memory)
        total = rounds * hardware.step + sum(lengths) * hardware.sequence + context * hardware.token
        work.append(total / load.engines)
        alone.append(max(work[-1], hardware.duration(1, read, max(lengths))))
    return sum(work) / len(work) / 10**12, sum(alone) / len(alone) / 10**12
