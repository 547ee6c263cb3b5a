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
def store():
    return dist.HashStore()


def fleet_of(store, beats=lambda engine: [time.monotonic()], restarts=8, patience=60.0):
    config = RolloutConfig(
        placement="separate", engine_ranks=2, max_staleness=0, engine_restarts=restarts, engine_timeout_minutes=SILENCE_S / 60
    )
    return Fleet(store, 2, beats, config, patience)


def arrive(fleet, store, engine, life=0):
    answers(store, engine, life).send(Arrived(ranks=1))
    assert [(one, type(answer)) for one, answer in fleet.answers()] == [(engine, Arrived)]


def looks(fleet, seconds):
    """All losses that are seen within so many seconds."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        found += fleet.fallen()
        time.sleep(0.01)
    return found


def test_a_life_ends_once_and_the_next_one_is_heard(store):
    fleet = fleet_of(store)
    arrive(fleet, store, 0)
    arrive(fleet, store, 1)
    fleet.serves(0)
    fleet.serves(1)
    assert (fleet.present, fleet.absent) == ([0, 1], [])
    Lives(store, 1).end(0, "was killed")
    Lives(store, 1).end(0, "is said a second time")
    assert looks(fleet, 0.6) == [(1, "was killed")]
    assert (fleet.present, fleet.arrived, fleet.absent, fleet.life(1)) == ([0], [0], [1], 1)
    answers(store, 1, 0).send(Arrived(ranks=1))
    assert not list(fleet.answers()), "of a life that has ended nothing is heard"
    arrive(fleet, store, 1, life=1)
    assert (fleet.waiting, fleet.is_new(1), fleet.is_new(0)) == ([1], True, False)
    fleet.was_proven([1])
    assert not fleet.is_new(1)


def test_one_without_a_heartbeat_is_lost_once_it_has_arrived(store):
    beats = {0: [b"1"], 1: [b"1"]}
    fleet = fleet_of(store, lambda engine: list(beats[engine]))
    assert not looks(fleet, 2 * SILENCE_S), "it may take long to start"
    arrive(fleet, store, 0)
    arrive(fleet, store, 1)
    until = time.monotonic() + 3 * SILENCE_S
    found = []
    while time.monotonic() < until:
        beats[1] = [str(time.monotonic()).encode()]
        found += looks(fleet, 0.1)
    assert [engine for engine, _ in found] == [0]
    assert Lives(store, 0).reason(0) == found[0][1], "its rank, if it can read this, ends the process"


def test_losses_are_counted_and_too_many_end_the_run(store):
    fleet = fleet_of(store, restarts=1)
    arrive(fleet, store, 0)
    Lives(store, 0).end(0, "was killed")
    looks(fleet, 0.3)
    Lives(store, 0).end(1, "was killed again")
    with pytest.raises(RunFailed, match=r"engine 0 was killed again: that is loss 2 of this run, and rollout\.engine_restarts allows 1"):
        looks(fleet, 0.6)


def test_nobody_comes_back(store):
    fleet = fleet_of(store, patience=1.5)
    for engine in range(2):
        arrive(fleet, store, engine)
        Lives(store, engine).end(0, "was killed")
    looks(fleet, 0.3)
    time.sleep(3)
    assert not looks(fleet, 0.01), "a trainer that has not looked for a while has not waited"
    with pytest.raises(RunFailed, match=r"no engine has come back for 0\.025 minutes \(distributed\.update_timeout_minutes\)"):
        looks(fleet, 3)


def test_one_that_has_ended_is_not_lost(store):
    fleet = fleet_of(store)
    channel = answers(store, 0, 0)
    channel.send(Arrived(ranks=1))
    channel.send(Ended())
    assert [type(answer) for _, answer in fleet.answers()] == [Arrived, Ended]
    Lives(store, 0).end(0, "ended")
    assert not looks(fleet, 2 * SILENCE_S)
