"""Engines as the trainers see them, where one is lost: the store and the bridge are real, engines are scripts in threads."""

import threading
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.distributed import watch
from polaris.distributed.mesh import Job, Roles, World
from polaris.distributed.supervise import Lives
from polaris.errors import RunFailed
from polaris.rollout.types import RolloutRequest, Sampling
from polaris.sampling.mailbox import Arrived, Go, Graded, Probe, Probed, Ready, Served, Weights, answers, commands
from polaris.sampling.remote import RemoteEngines
from polaris.stop import StopRequest
from polaris.sync.bridge import Bridge, place_of
from polaris.types import Prompt, ScoredRollout, Verdict

SAMPLING = Sampling(temperature=1.0, max_tokens=4)
REQUEST = RolloutRequest(prompt_id="p", sample=0, prompt_tokens=(1,), seed=1)
ROLLOUT = REQUEST.answered(np.array([1], np.int32), np.zeros(1, np.float32), "stop", 0, 1.0)
PROMPT = Prompt(id="p", tokens=(1,), text="", ground_truth="1", source="")
GRADED = Graded(job=1, scored=ScoredRollout(rollout=ROLLOUT, text="", verdict=Verdict("wrong")))


class Engine(threading.Thread):
    """It takes weights and answers probes."""

    def __init__(self, store):
        super().__init__(daemon=True)
        self.store, self.answers, self.commands = store, answers(store, 0, 0), commands(store)
        self.answers.send(Arrived(ranks=1))
        self.over = False
        self.start()

    def run(self):
        while not self.over:
            for command in self.commands.receive(self.commands.come()):
                self.obey(command)
            time.sleep(0.002)

    def obey(self, command):
        match command:
            case Weights():
                self.version = command.version
                self.answers.send(Ready(generation=command.generation, read=self.commands.read))
            case Go():
                bridge = Bridge(place_of(self.store, command.generation), 1, 2, torch.device("cpu"), timedelta(seconds=1))
                try:
                    self.got = list(bridge.receive())
                except RuntimeError:
                    return
                self.answers.send(Served(version=self.version, busy=0.0, seconds=1.0))
            case Probe():
                self.answers.send(Probed(number=command.number, rollouts=(ROLLOUT,)))


@pytest.fixture
def one():
    """The trainers' side of one engine, the engine, and the request to stop."""
    store, stop = dist.HashStore(), StopRequest()
    roles = Roles(engine_ranks=1)
    world = World(rank=0, size=1, device=torch.device("cpu"), mesh=None, shared=store, job=Job(size=2, store=store), roles=roles)
    config = RunConfig(rollout=RolloutConfig(placement="separate", engine_ranks=1, max_staleness=0))
    engines, engine = RemoteEngines(world, config, stop, lambda note: None), Engine(store)
    engines.meet()
    engines.renew = lambda: pytest.fail("no engine has come back")
    yield engines, engine, stop
    engine.over = True
    engine.join()


def within(seconds, call):
    """The list that `call` returns, which it does within so many seconds."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found


def test_a_stop_does_not_wait_for_the_only_engine_to_be_started_again(one):
    engines, engine, stop = one
    engine.over = True
    engine.join()
    Lives(engine.store, 0).end(0, "was killed")
    stop.number = 15
    assert within(5, lambda: [engines.draw_on_each([REQUEST], SAMPLING)]) == [[]]


def test_an_error_of_the_trainers_own_is_no_loss_of_an_engine(one):
    engines, _, _ = one

    def gathered():
        yield "first", torch.zeros(2)
        raise torch.OutOfMemoryError("of the trainer")

    with pytest.raises(torch.OutOfMemoryError, match="of the trainer"):
        engines.load_weights(gathered(), 1)
    assert engines.lost == 0


@pytest.mark.parametrize("sent", ["before the probe", "after it"])
def test_what_an_engine_drew_with_other_weights_does_not_count(one, sent):
    engines, engine, _ = one
    job = engines.jobs.post([PROMPT], [REQUEST], SAMPLING, {})
    engines.load_weights([("first", torch.zeros(2))], 1)
    if sent == "before the probe":  # so that it is heard before the proof has failed
        engine.answers.send(GRADED)
    assert len(engines.draw_on_each([REQUEST], SAMPLING)) == 1
    if sent == "after it":
        engine.answers.send(GRADED)
    engines.dismiss({0: "serves other weights"}, RunFailed("differs"))
    assert engines.lost == 1
    assert not job.arrived


def test_what_comes_while_weights_are_being_proven_counts_once_they_are(one):
    engines, engine, _ = one
    job = engines.jobs.post([PROMPT], [REQUEST], SAMPLING, {})
    engines.load_weights([("first", torch.zeros(2))], 1)
    engine.answers.send(GRADED)
    engines.draw_on_each([REQUEST], SAMPLING)
    assert not job.complete
    engines.approve()
    assert within(5, lambda: [engines.wait(job)]) == [True]


def test_a_trainer_to_whom_no_engine_speaks_makes_progress_when_the_first_one_hears(monkeypatch):
    marks, hears, comes = [], (False, False, False, True), (True, False, False, False)
    replies = iter([[hears], [(False, False, False, False)], [comes]])
    monkeypatch.setattr(World, "gather", lambda self, items: next(replies))
    monkeypatch.setattr(watch, "mark", marks.append)
    job = Job(size=3, store=dist.HashStore())
    world = World(rank=1, size=2, device=torch.device("cpu"), mesh=None, shared=job.store, job=job, roles=Roles(engine_ranks=1))
    engines = RemoteEngines(world, RunConfig(rollout=RolloutConfig(placement="separate", engine_ranks=1)), StopRequest(), lambda note: None)
    assert engines.wait(engines.jobs.post([PROMPT], [REQUEST], SAMPLING, {}))
    assert len(marks) == 1
