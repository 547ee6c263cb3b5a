"""Sampling contexts of one or several ranks, as threads, whose engine and grader follow a script."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from torch.distributed import HashStore

from polaris.config.model import ModelConfig
from polaris.config.recipe import DifficultyConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.data.pass_rates import PassRates
from polaris.data.plateau import Plateau
from polaris.data.prompt_statistics import PromptStatistics
from polaris.data.sampler import Sampler
from polaris.learn.core import ResultSets
from polaris.learn.learner import Learner
from polaris.learn.success_buffer import SuccessBuffer
from polaris.observe.console import Console
from polaris.rollout.types import GenerationInterrupted, Progress
from polaris.run.context import TrainContext
from polaris.run.profiler import open_profiler
from polaris.run.tracker import TemperatureTracker
from polaris.sampling.clock import Clock
from polaris.sampling.colocated import Colocated
from polaris.sampling.context import SamplingContext
from polaris.stop import StopRequest
from polaris.sync.publish import SyncProof
from polaris.types import TIMEOUT, Prompt, Rollout, Verdict


def pass_config(folder, samples):
    """A run in `folder` with a difficulty pass; one engine's chunk is 8 prompts, and the model is a configuration without weights."""
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen3", "max_position_embeddings": 64, "vocab_size": 97}')
    (model / "model.safetensors").write_bytes(bytes(1000))
    return RunConfig(
        root=str(folder),
        name="run",
        model=ModelConfig(path=str(model)),
        rollout=RolloutConfig(max_concurrent=8),
        difficulty=DifficultyConfig(samples_per_prompt=samples),
    )


def prompts_named(names):
    return tuple(Prompt(id=name, text=name, tokens=(1, 2), ground_truth="2", source="x:1") for name in names)


class Ranks:
    """`World`s of `size` ranks that wait for each other; a rank that waits in vain is an error."""

    def __init__(self, size):
        self.size, self._meeting, self._places = size, Barrier(size, timeout=20), [None] * size
        self.store = HashStore()

    def world(self, rank):
        def gather(items):
            self._places[rank] = list(items)
            self._meeting.wait()
            everything = [item for place in self._places for item in place]
            self._meeting.wait()
            return everything

        return SimpleNamespace(
            rank=rank,
            size=self.size,
            is_main=rank == 0,
            engines=0,
            gather=gather,
            any=lambda flag: any(gather([flag])),
            barrier=lambda: gather([]),
            store=lambda: self.store,
        )


@dataclass
class ScriptedEngine:
    """Hotter responses have more kinds of tokens. They end in the order of their seeds, and a stop comes after `stops_after` of them."""

    stops_after: int | None = None
    asked: list = field(default_factory=list)
    version: int = 0
    ended: list = field(default_factory=list)

    def generate(self, requests, sampling, *, on_progress, should_stop, on_finished=None):
        self.asked += requests
        ended = {}
        for request in sorted(requests, key=lambda request: request.seed):
            if self.stops_after is not None and len(ended) == self.stops_after:
                raise GenerationInterrupted
            key = (request.prompt_id, request.sample)
            ended[key] = _response(request, sampling)
            self.ended.append(key)
            if on_finished is not None:
                on_finished(ended[key])
            drawn = sum(len(rollout.tokens) for rollout in ended.values())
            on_progress(Progress(finished=len(ended), total=len(requests), tokens=drawn))
        return [ended[request.prompt_id, request.sample] for request in requests]

    def sleep(self):
        pass


def _response(request, sampling):
    tokens = np.random.default_rng(request.seed).integers(10, 10 + round(30 * sampling.temperature), 5 + request.seed % 6).astype(np.int32)
    return Rollout(
        prompt_id=request.prompt_id,
        sample=request.sample,
        tokens=tokens,
        logprobs=np.zeros(len(tokens), np.float32),
        finish_reason="length" if len(tokens) == 10 else "stop",
        versions=np.zeros(len(tokens), np.int32),
        temperature=sampling.temperature,
        seed=request.seed,
    )


class ScriptedGrader:
    """About a third is correct; the first `lost` responses cost a process its life."""

    def __init__(self, lost=0):
        self._lost = lost

    def score(self, items):
        lost, self._lost = min(self._lost, len(items)), max(0, self._lost - len(items))
        texts = [item.response for item in items]
        verdicts = [Verdict("correct", reward=1.0) if sum(map(ord, text)) % 3 == 0 else Verdict("wrong") for text in texts]
        return [Verdict("ungradable", TIMEOUT)] * lost + verdicts[lost:]


def on_ranks(config, work, *, stops_after=(), lost=0):
    """`work(context)` on as many ranks as `stops_after` has entries (None: not stopped): results or errors, and prompts each has drawn."""
    size = max(1, len(stops_after))
    ranks = Ranks(size)
    engines = [ScriptedEngine(stops_after[rank] if stops_after else None) for rank in range(size)]

    def one(rank):
        context = SamplingContext(
            config=config,
            world=ranks.world(rank),
            tokenizer=SimpleNamespace(decode=lambda tokens, **_: " ".join(map(str, tokens))),
            engine=engines[rank],
            grader=ScriptedGrader(lost if rank == 0 else 0),
            console=Console(rank == 0, config.steps),
            stop=StopRequest(),
        )
        try:
            return work(context)
        except Exception as error:
            return error

    here = patch("polaris.sampling.draw.gather_scored", lambda mine, world: world.gather(mine))  # arrays go between processes
    with here, ThreadPoolExecutor(size) as pool:
        results = list(pool.map(one, range(size)))
    return results, engines


def for_training(sampling, prompts=(), held_out=(), pass_rates=None, successes=None):
    """A training context whose learner and proof of sync nobody calls."""
    source = Colocated(
        context=sampling,
        clock=Clock(sampling.console),
        prompts=prompts,
        sampler=None if not prompts else Sampler(len(prompts), min(len(prompts), sampling.config.trainer.prompts_per_step), 0),
        proof=SyncProof(probe=None, yardstick=None, trainer_logprobs=None),
        credited=list,
        teaching=lambda groups, step: np.ones(len(groups), bool),
        usual_lengths=dict,
        last=9,
    )
    return TrainContext(
        source=source,
        learner=Learner(policy=None, optimizer=None, config=sampling.config, world=sampling.world),
        held_out=held_out,
        pass_rates=pass_rates or PassRates(),
        successes=successes or SuccessBuffer(0),
        tracker=TemperatureTracker(),
        results=ResultSets(sampling.config.reward.process),
        console=sampling.console,
        all_prompts=prompts,
        statistics=PromptStatistics(50),
        plateau=Plateau(0),
        profiler=open_profiler(sampling.config.folder, (), True, sampling.console.note),
    )
