"""An engine's rank by itself: the store is real, the engine answers every request with one token."""

import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from polaris.config.rollout import RolloutConfig
from polaris.distributed.mesh import Job, Roles, World
from polaris.distributed.supervise import Pulse
from polaris.errors import RunFailed
from polaris.rollout.types import RolloutRequest, Sampling
from polaris.sampling.engine_rank import EngineRank
from polaris.sampling.mailbox import Close, Go, Open, Ready, Served, Weights, answers, commands
from polaris.stop import StopRequest
from polaris.sync.bridge import Bridge, place_of
from polaris.types import Prompt

REQUEST = RolloutRequest(prompt_id="p", sample=0, prompt_tokens=(1,), seed=1)


class Engine:
    waiting = tokens = 0

    def __init__(self):
        self.pending = []

    @property
    def running(self):
        return len(self.pending)

    def submit(self, requests, sampling):
        self.pending += requests

    def step(self):
        ended, self.pending = self.pending, []
        return [one.answered(np.array([1], np.int32), np.zeros(1, np.float32), "stop", 0, 1.0) for one in ended]

    def exchange_weights(self, weights, version):
        self.weights, self.version = {name: tensor.tolist() for name, tensor in weights}, version


def refuse(items):
    time.sleep(0.2)
    raise RunFailed("cannot be graded")


def rank_of(engine, store):
    roles = Roles(engine_ranks=1)
    world = World(rank=0, size=1, device=torch.device("cpu"), mesh=None, shared=store, job=Job(rank=1, size=2, store=store), roles=roles)
    return EngineRank(engine, world, StopRequest(), Pulse(), 0, RolloutConfig(placement="separate", engine_ranks=1, max_staleness=0))


def test_a_grader_that_fails_after_the_last_response_ends_the_engine():
    store = dist.HashStore()
    context = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda tokens, **how: ""), grader=SimpleNamespace(score=refuse))
    to = commands(store)
    prompt = Prompt(id="p", tokens=(1,), text="", ground_truth="1", source="")
    to.send(Open(number=1, prompts=(prompt,), requests=(REQUEST,), sampling=Sampling(temperature=1.0, max_tokens=4), expected={}))
    late = threading.Timer(3, lambda: to.send(Close(signal=0)))
    late.start()
    try:
        with pytest.raises(RunFailed, match="cannot be graded"):
            rank_of(Engine(), store).run(context)
    finally:
        late.cancel()


class Broken(Exception):
    """The trainer stops sending."""


def weights(version, names="ab"):
    """Two tensors; the trainer breaks off where it has fewer `names`."""
    for name in names:
        yield name, torch.full((1,), float(version))
    if names != "ab":
        raise Broken


def deliver(store, orders):
    """Send the weights of each version, with the names that cross; of one without any the engine hears, and it never comes."""
    to, heard = commands(store), answers(store, 0, 0)

    def hear(kind):
        while not any(isinstance(answer, kind) for answer in heard.receive(heard.come())):
            time.sleep(0.002)

    for version, names in orders:
        to.send(Weights(version=version, generation=version, ranks={0: 1}, size=2))
        hear(Ready)
        if names:
            to.send(Go(generation=version))
            with suppress(Broken):
                Bridge(place_of(store, version), 0, 2, torch.device("cpu"), timedelta(seconds=10)).send(weights(version, names))
    hear(Served)
    to.send(Close(signal=0))


@pytest.mark.parametrize("orders", [[(1, ""), (2, "ab")], [(2, "ab")]], ids=["never come", "come"])
def test_an_engine_serves_the_weights_that_came_after_some_that_never_did(orders):
    store, engine = dist.HashStore(), Engine()
    trainer = threading.Thread(target=deliver, args=(store, orders), daemon=True)
    trainer.start()
    assert isinstance(rank_of(engine, store).run(), Close)
    assert (engine.version, engine.weights) == (2, {"a": [2.0], "b": [2.0]})


def test_an_engine_that_has_half_of_one_version_does_not_take_the_other_half_of_the_next():
    store = dist.HashStore()
    threading.Thread(target=deliver, args=(store, [(1, "a"), (2, "ab")]), daemon=True).start()
    with pytest.raises(RunFailed, match="only a part of the weights of version 1 came, and then those of version 2"):
        rank_of(Engine(), store).run()
