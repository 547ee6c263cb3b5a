"""The real scheduler of `polaris.sampling` on engines in virtual time, on given lengths: what the simulator must foretell.

Real are `Colocated`, `StepDraw`, `Line`, `Queue`, `Board` and `Carried`. Grading takes no time, and an engine looks after every step
whether the step has enough, not every 0.1 s. Ranks are threads of this process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby, islice
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from torch.distributed import HashStore

from benchmarks.rollout.engines import Engine, Response
from benchmarks.rollout.policies import Policy, Step, Workload
from benchmarks.rollout.virtual_time import VirtualTime, VirtualWorld
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.rollout.types import RolloutRequest, Sampling
from polaris.sampling.clock import Clock
from polaris.sampling.colocated import Colocated
from polaris.sampling.context import SamplingContext
from polaris.sampling.grading import Grading
from polaris.stop import StopRequest
from polaris.sync.publish import SyncProof
from polaris.types import Group, Prompt, Rollout, Verdict


class VirtualEngine:
    """A `Stepwise` engine: the model of `benchmarks.rollout.engines` in virtual time. `lengths` of all engines: those that have begun."""

    def __init__(self, load: Workload, rank: int, time: VirtualTime, lengths: dict[tuple[str, int], int]) -> None:
        self._load, self._rank, self._time, self._lengths = load, rank, time, lengths
        self.begin(0)

    def begin(self, version: int) -> None:
        """A step, under the weights of `version`."""
        self.version, self.claims, self._start = version, list[tuple[int, int, int]](), self._time.now[self._rank]
        self._engine = Engine(self._load.hardware, version)
        self._pending: dict[int, tuple[Response, RolloutRequest, Sampling]] = {}

    @property
    def running(self) -> int:
        return self._engine.unfinished

    @property
    def waiting(self) -> int:
        return self._engine.waiting

    @property
    def tokens(self) -> int:
        return 0

    def submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        now = self._time.now[self._rank] - self._start
        for request in requests:
            self.claims.append((now, int(request.prompt_id), request.sample))
            response = self._response(request)
            self._pending[id(response)] = (response, request, sampling)
            self._engine.submit([response])

    def step(self) -> list[Rollout]:
        self._engine.plan()
        self._time.wait(self._rank, self._engine.duration(1))
        return [self._rollout(response, "stop") for response in self._engine.draw(1)]

    def abort(self) -> list[Rollout]:
        cut = self._engine.abort()
        return [self._rollout(response, "abort") for response in cut if response.drawn]

    def sleep(self) -> None:
        assert not self._engine.unfinished

    def _response(self, request: RolloutRequest) -> Response:
        """The rest of one that has begun has its earlier tokens in the prompt."""
        key, read = (request.prompt_id, request.sample), len(request.prompt_tokens)
        if read == self._load.prompt_tokens:
            self._lengths[key] = self._load.lengths.drawn(int(request.prompt_id), self.version)[request.sample]
        return Response(int(request.prompt_id), request.sample, self._lengths[key] + self._load.prompt_tokens - read, read)

    def _rollout(self, response: Response, reason: Any) -> Rollout:
        _, request, sampling = self._pending.pop(id(response))
        tokens, logprobs = np.zeros(response.drawn, np.int32), np.zeros(response.drawn, np.float32)
        return request.answered(tokens, logprobs, reason, self.version, sampling.temperature)


class _PromptGrading(Grading):
    """Grading that takes no time: a response is graded before its engine goes on."""

    def add(self, rollout: Rollout) -> None:
        super().add(rollout)
        self.wait()


@dataclass(slots=True)
class _InOrder:
    """A sampler that gives the prompts in this order."""

    prompts: Iterator[int]
    batches_left: int = 0

    def next(self, step: int, count: int, without: Collection[int]) -> list[int]:
        return list(islice(self.prompts, count))


class _Silent:
    """A `Reporter` of nothing."""

    def phase(self, name: str, *, in_step: bool = True) -> AbstractContextManager[None]:
        return nullcontext()

    def progress(self, finished: int, total: int, tokens: int) -> None: ...


def replayed(policy: Policy, load: Workload, order: Iterable[int] | None = None) -> list[Step]:
    """The steps of a workload by the real code, on prompts in this order (as they are numbered)."""
    real = Policy(name="")
    assert (policy.share, policy.chunk, policy.ratio) == (real.share, real.chunk, real.ratio), "the real scheduler has no such choice"
    time, store, lengths = VirtualTime(load.engines), HashStore(), dict[tuple[str, int], int]()
    chosen = list(range(2 * load.prompts * load.steps) if order is None else order)
    patches = (
        patch("polaris.sampling.line._INTERVAL_S", 0.0),
        patch("polaris.sampling.draw.Grading", _PromptGrading),
        patch("polaris.sampling.draw.gather_scored", lambda mine, world: world.gather(mine)),  # arrays go between processes
    )
    with patches[0], patches[1], patches[2]:
        ranks = time.run(lambda rank: _run(policy, load, rank, time, store, lengths, chosen))
    return [_joined(steps) for steps in zip(*ranks, strict=True)]


def _run(
    policy: Policy, load: Workload, rank: int, time: VirtualTime, store: HashStore, lengths: dict[tuple[str, int], int], chosen: list[int]
) -> list[Step]:
    engine, world = VirtualEngine(load, rank, time, lengths), _Noting(rank, time, store)
    source = _source(policy, load, engine, world, chosen)
    steps = []
    for version in range(load.steps):
        engine.begin(version)
        world.done = None
        start = time.now[rank]
        groups = source.next(version + 1, 1.0)
        assert world.done is not None
        facts, left = source.carried.facts, source.carried.started
        steps.append(
            Step(
                duration=time.now[rank] - start,
                engines=(world.done - start,),
                drawn=source.carried.generated,
                dropped=int(facts.get("rollout/dropped_tokens", 0)),
                taken=tuple((int(group.prompt.id), tuple(_parts(one.rollout) for one in group.rollouts)) for group in groups),
                left=tuple(int(one.prompt_id) for one in left),
                claims=(tuple(engine.claims),),
            )
        )
    return steps


class _Noting(VirtualWorld):
    """Notes when its rank comes to the first meeting of a step: then its engine is done."""

    done: int | None = None

    def gather(self, items: Sequence[Any]) -> list[Any]:
        self.done = self._time.now[self.rank] if self.done is None else self.done
        return super().gather(items)


def _source(policy: Policy, load: Workload, engine: VirtualEngine, world: VirtualWorld, chosen: list[int]) -> Colocated:
    prompts = tuple(
        Prompt(id=str(number), text="", tokens=(1,) * load.prompt_tokens, ground_truth="", source="") for number in range(max(chosen) + 1)
    )
    rollout = RolloutConfig(
        samples_per_prompt=load.samples,
        max_response_tokens=10**9,
        max_concurrent=load.hardware.most,
        oversample=policy.oversample,
        carry_over=policy.carry,
        max_staleness=policy.max_staleness,
    )
    context = SamplingContext(
        config=RunConfig(rollout=rollout, trainer=TrainerConfig(prompts_per_step=load.prompts)),
        world=world,
        tokenizer=SimpleNamespace(decode=lambda tokens, **_: ""),
        engine=engine,
        grader=SimpleNamespace(score=lambda items: [Verdict("correct", reward=1.0) for _ in items], has_raised=False),
        console=_Silent(),
        stop=StopRequest(),
    )
    expected = {str(number): load.lengths.expected(number) for number in chosen} if policy.history else {}
    return Colocated(
        context=context,
        clock=Clock(context.console),
        prompts=prompts,
        sampler=_InOrder(iter(chosen)),
        proof=SyncProof(probe=None, yardstick=None, trainer_logprobs=None),
        credited=list,
        teaching=lambda groups, step: _teaching(load, groups),
        usual_lengths=lambda: expected,
        last=load.steps,
    )


def _teaching(load: Workload, groups: Sequence[Group]) -> np.ndarray:
    return np.array([load.teaches(int(group.prompt.id)) for group in groups])


def _parts(rollout: Rollout) -> tuple[tuple[int, int], ...]:
    return tuple((version, len(list(tokens))) for version, tokens in groupby(rollout.versions.tolist()))


def _joined(steps: Sequence[Step]) -> Step:
    """What the ranks saw of one step, all of them the same but for their own engines."""
    first, *others = steps
    seen = [(one.duration, one.drawn, one.dropped, one.taken, one.left) for one in steps]
    assert all(one == seen[0] for one in seen), others
    return Step(
        duration=first.duration,
        engines=tuple(one.engines[0] for one in steps),
        drawn=first.drawn,
        dropped=first.dropped,
        taken=first.taken,
        left=first.left,
        claims=tuple(one.claims[0] for one in steps),
    )
