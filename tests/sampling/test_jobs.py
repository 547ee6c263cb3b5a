"""What is asked of engines, when one of them is lost: every request is drawn by somebody, and counts once. Engines here are scripts."""

import numpy as np
import pytest
import torch.distributed as dist

from polaris.rollout.types import RolloutRequest, Sampling
from polaris.sampling.jobs import Jobs, queue_of
from polaris.sampling.mailbox import Done, Graded, Open, Recall, Running, commands, key_of
from polaris.types import Prompt, ScoredRollout, Verdict

ENGINES = 3


def request(sample):
    return RolloutRequest(prompt_id="p", sample=sample, prompt_tokens=(1,), seed=100 + sample)


class Engines:
    """Scripts that claim, answer and read commands."""

    def __init__(self, store):
        self.store = store
        self.channels = [commands(store) for _ in range(ENGINES)]
        self.orders, self.taken = [None] * ENGINES, [set() for _ in range(ENGINES)]
        self.queues = [None] * ENGINES

    def read(self, engine):
        """What was said to it; newer orders are taken."""
        said = list(self.channels[engine].receive(self.channels[engine].come()))
        for command in said:
            if isinstance(command, Open):
                self.queues[engine] = queue_of(command, ENGINES, self.store)
        return said

    def claim(self, engine, most):
        claimed = self.queues[engine].requests(self.queues[engine].claim(engine, most, 0))
        self.taken[engine].update(map(key_of, claimed))
        return claimed

    def running(self, engine, number):
        return Running(number=number, keys={1: frozenset(self.taken[engine])})


def graded(one):
    rollout = one.answered(np.array([1], np.int32), np.zeros(1, np.float32), "stop", 0, 1.0)
    return Graded(job=1, scored=ScoredRollout(rollout=rollout, text="", verdict=Verdict("wrong")))


@pytest.fixture
def asked():
    store = dist.HashStore()
    jobs, engines = Jobs(commands(store), store, ENGINES), Engines(store)
    prompt = Prompt(id="p", tokens=(1,), text="", ground_truth="1", source="")
    job = jobs.post([prompt], [request(sample) for sample in range(12)], Sampling(temperature=1.0, max_tokens=4), {})
    for engine in range(ENGINES):
        engines.read(engine)
    return store, jobs, engines, job


def test_what_a_lost_engine_had_taken_is_handed_out_again_and_nothing_else(asked):
    _, jobs, engines, job = asked
    first, second = engines.claim(0, 3), engines.claim(1, 2)
    jobs.graded(0, graded(first[0]))
    jobs.graded(0, graded(second[0]))
    engines.taken[1].discard(key_of(second[0]))
    jobs.recall([1, 2])  # engine 0 is gone, with two unanswered
    assert not engines.claim(2, 5), "no engine takes anything until it is known what is missing"
    (recall,) = engines.read(1)
    assert isinstance(recall, Recall)
    jobs.running(1, engines.running(1, recall.number))
    assert [type(command) for command in engines.read(2)] == [Recall], "one engine has not answered"
    jobs.running(2, engines.running(2, recall.number))
    (order,) = engines.read(2)
    missing = {key_of(one) for one in order.requests}
    assert missing == {key_of(request(sample)) for sample in range(12)} - {key_of(one) for one in (first[0], *second)}
    assert order.revision == 1
    assert not job.complete


def test_a_second_loss_before_all_have_answered_asks_again(asked):
    _, jobs, engines, _ = asked
    lost = engines.claim(0, 2), engines.claim(1, 2)
    jobs.recall([1, 2])
    jobs.recall([2])
    first, second = (command for command in engines.read(2) if isinstance(command, Recall))
    jobs.running(1, engines.running(1, first.number))  # it came before the engine was lost
    jobs.running(2, engines.running(2, first.number))
    assert not engines.read(2)
    jobs.running(2, engines.running(2, second.number))
    (order,) = engines.read(2)
    assert {key_of(one) for claim in lost for one in claim} <= {key_of(one) for one in order.requests}
    assert len(order.requests) == 12


def test_the_last_engine_takes_everything_and_a_response_that_comes_twice_counts_once(asked):
    store, jobs, engines, job = asked
    engines.claim(0, 4)
    jobs.recall([])  # all are gone: it is handed out for those that come back
    (order,) = jobs.orders()
    assert (order.revision, len(order.requests)) == (1, 12)
    for one in (*order.requests, order.requests[0]):
        jobs.graded(0, graded(one))
    assert job.complete
    assert len(job.arrived) == 12
    jobs.close(job)
    jobs.graded(0, graded(request(0)))  # an engine that was thought lost
    assert isinstance(engines.read(0)[-1], Done)
    jobs.forget(engines.channels[0].read)
    assert not store.num_keys(), "the store keeps nothing of an ended job"


@pytest.mark.parametrize("proven", [True, False])
def test_what_has_come_from_an_engine_with_unproven_weights_is_drawn_anew_only_with_its_loss(asked, proven):
    _, jobs, engines, job = asked
    (one,) = engines.claim(1, 1)
    jobs.doubt([1])
    jobs.graded(1, graded(one))
    engines.taken[1].clear()
    jobs.recall([1, 2])  # engine 0 is gone
    for engine in (1, 2):
        *_, recall = engines.read(engine)
        jobs.running(engine, engines.running(engine, recall.number))
    (order,) = engines.read(2)
    assert key_of(one) not in {key_of(request) for request in order.requests}
    assert not job.arrived
    if proven:
        jobs.believe([1])
        assert [key_of(scored.rollout) for scored in job.arrived] == [key_of(one)]
        return
    jobs.lose(1)
    jobs.recall([2])
    (recall,) = engines.read(2)
    jobs.running(2, engines.running(2, recall.number))
    (order,) = engines.read(2)
    assert len(order.requests) == 12
    assert not job.arrived
