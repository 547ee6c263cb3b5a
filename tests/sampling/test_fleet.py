"""Which engines are there, as the first trainer sees it; the store is real, engines are scripts."""

import time

import pytest
import torch.distributed as dist

from polaris.config.rollout import RolloutConfig
from polaris.distributed.supervise import Lives
from polaris.errors import RunFailed
from polaris.sampling.fleet import Fleet
from polaris.sampling.mailbox import Arrived, Ended, answers

SILENCE_S = 0.6


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr("polaris.sampling.fleet._MARGIN_S", 0.0)
    return dist.HashStore()


def fleet_of(store, beats=lambda engine: [time.monotonic()], restarts=8, patience=60.0):
    config = RolloutConfig(
        placement="separate", engine_ranks=2, max_staleness=0, engine_restarts=restarts, engine_timeout_minutes=SILENCE_S / 60
    )
    return Fleet(store, 2, beats, config, patience)


def arrive(seen, store, engine, life=0):
    answers(store, engine, life).send(Arrived(ranks=1))
    assert [(one, type(answer)) for one, answer in seen.answers()] == [(engine, Arrived)]


def looks(seen, seconds):
    """All losses that are seen within so many seconds."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        found += seen.fallen()
        time.sleep(0.01)
    return found


def test_a_life_ends_once_and_the_next_one_is_heard(store):
    seen = fleet_of(store)
    arrive(seen, store, 0)
    arrive(seen, store, 1)
    seen.serves(0)
    seen.serves(1)
    assert (seen.present, seen.absent) == ([0, 1], [])
    Lives(store, 1).end(0, "was killed")
    Lives(store, 1).end(0, "is said a second time")
    assert looks(seen, 0.6) == [(1, "was killed")]
    assert (seen.present, seen.arrived, seen.absent, seen.life(1)) == ([0], [0], [1], 1)
    answers(store, 1, 0).send(Arrived(ranks=1))
    assert not list(seen.answers()), "of a life that has ended nothing is heard"
    arrive(seen, store, 1, life=1)
    assert (seen.waiting, seen.is_new(1), seen.is_new(0)) == ([1], True, False)
    seen.was_proven([1])
    assert not seen.is_new(1)


def test_one_without_a_heartbeat_is_lost_once_it_has_arrived(store):
    beats = {0: [b"1"], 1: [b"1"]}
    seen = fleet_of(store, lambda engine: list(beats[engine]))
    assert not looks(seen, 2 * SILENCE_S), "it may take long to start"
    arrive(seen, store, 0)
    arrive(seen, store, 1)
    until = time.monotonic() + 3 * SILENCE_S
    found = []
    while time.monotonic() < until:
        beats[1] = [str(time.monotonic()).encode()]
        found += looks(seen, 0.1)
    assert [engine for engine, _ in found] == [0]
    assert Lives(store, 0).reason(0) == found[0][1], "its rank, if it can read this, ends the process"


def test_losses_are_counted_and_too_many_end_the_run(store):
    seen = fleet_of(store, restarts=1)
    arrive(seen, store, 0)
    Lives(store, 0).end(0, "was killed")
    looks(seen, 0.3)
    Lives(store, 0).end(1, "was killed again")
    with pytest.raises(RunFailed, match=r"engine 0 was killed again: that is loss 2 of this run, and rollout\.engine_restarts allows 1"):
        looks(seen, 0.6)


def test_nobody_comes_back(store):
    seen = fleet_of(store, patience=1.5)
    for engine in range(2):
        arrive(seen, store, engine)
        Lives(store, engine).end(0, "was killed")
    looks(seen, 0.3)
    time.sleep(3)
    assert not looks(seen, 0.01), "a trainer that has not looked for a while has not waited"
    with pytest.raises(RunFailed, match=r"no engine has come back for 0\.025 minutes \(distributed\.update_timeout_minutes\)"):
        looks(seen, 3)


def test_one_that_has_ended_is_not_lost(store):
    seen = fleet_of(store)
    channel = answers(store, 0, 0)
    channel.send(Arrived(ranks=1))
    channel.send(Ended())
    assert [type(answer) for _, answer in seen.answers()] == [Arrived, Ended]
    Lives(store, 0).end(0, "ended")
    assert not looks(seen, 2 * SILENCE_S)
