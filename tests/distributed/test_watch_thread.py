"""The watching thread of a rank, without torchrun: who is named, who speaks, and who may go on."""

import socket
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from polaris.config.training import DistributedConfig
from polaris.distributed import watch

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # `leave` ends a thread
BEAT_S = 0.02
LIMITS = DistributedConfig(update_timeout_minutes=0.1 / 60, wait_timeout_hours=1 / 3600)


@pytest.fixture
def ended(monkeypatch):
    """(status, thread) of every exit; the thread ends, the process does not."""
    found = []

    def leave(status):
        found.append((status, threading.current_thread().name))
        raise SystemExit

    monkeypatch.setattr(watch, "BEAT_S", BEAT_S)
    monkeypatch.setattr(watch.os, "_exit", leave)
    return found


@pytest.fixture
def ranks(ended):
    """Makes the watches of some ranks of three, and stops them before they could end this process."""
    store, made = dist.HashStore(), []

    def make(*numbers, limits=LIMITS, trainers=0):
        made.extend(watch._Watch(store, number, 3, limits, trainers) for number in numbers)
        return made

    yield make
    for one in made:
        one.stop()


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def lines_of(text):
    return [line.strip() for line in text.split("The ranks:")[1].strip().splitlines()]


def test_the_report_names_the_dead_first_and_says_where_the_living_stand(ranks, ended, capsys):
    first, second = ranks(0, 1)
    second.limits = DistributedConfig()
    second.move("sync, tensor 3")
    first.urgent = True
    first.move("pack 1 of 2")
    wait_for(lambda: ended)
    text = capsys.readouterr().err
    assert ended == [(1, "polaris-watch")]
    assert text.startswith("polaris, rank 0: no progress for 0.00166667 minutes (distributed.update_timeout_minutes) at: pack 1 of 2.")
    lines = lines_of(text)
    assert lines[0] == "rank 2 HANGS: its process has no heartbeat"
    for rank, place in enumerate(("pack 1 of 2", "sync, tensor 3")):
        words, seconds = lines[1 + rank].split(", for ")
        assert words == f"rank {rank} HANGS, is slow, or waits for its GPU: {place}"
        assert 0 <= int(seconds.split(" s, in ")[0]) < 20
        assert "(wait_for)" in seconds or "(<lambda>)" in seconds, "the line of the main thread"
        assert seconds.endswith(f", on {socket.gethostname()}")
    assert lines[3:] == ["What is finished is on disk, and the same command goes on from there"]


def test_a_rank_that_waits_in_a_collective_is_named_after_those_that_do_not(ranks, ended, capsys, monkeypatch):
    monkeypatch.setattr(watch, "_TORCH", str(Path(__file__).parent))
    ranks(0, 1, 2)
    wait_for(lambda: ended)
    lines = lines_of(capsys.readouterr().err)
    assert [line.split(":")[0] for line in lines[:3]] == [f"rank {rank} waits for others" for rank in range(3)]


def test_a_place_is_the_innermost_line_of_ours_and_the_line_that_runs(ranks, monkeypatch):
    monkeypatch.setattr(watch, "_OURS", str(Path(__file__).parent))
    (one,) = ranks(0)

    def outer():
        return inner()

    def inner():
        return one._standing()

    place, waits = outer()
    ours, running = place.split(", ")
    assert ours.startswith("test_watch_thread.py:")
    assert ours.endswith("(inner)")
    assert running.endswith("(_standing)")
    assert not waits


def test_one_rank_speaks_and_all_leave(ranks, ended, capsys):
    ranks(0, 1, 2)
    wait_for(lambda: len(ended) == 3)
    assert {status for status, _ in ended} == {1}
    text = capsys.readouterr().err
    assert text.count("The ranks:") == 1
    assert "(distributed.wait_timeout_hours) at: start" in text, "outside of an update the long limit holds"


def test_a_rank_that_falls_silent_is_named_while_the_others_may_wait_for_hours(ranks, ended, capsys, monkeypatch):
    """As where its machine is gone: `world.any` between two steps would wait for it as long as for rollouts."""
    limits = DistributedConfig(update_timeout_minutes=0.5 / 60, wait_timeout_hours=1.0)
    _, second = ranks(0, 1, limits=limits, trainers=2)
    time.sleep(1.0)
    assert not ended
    monkeypatch.setattr(second, "_beat", lambda: None)
    wait_for(lambda: ended)
    assert ended == [(1, "polaris-watch")]
    text = capsys.readouterr().err
    assert text.startswith("polaris, rank 0: no heartbeat of a rank for 0.00833333 minutes (distributed.update_timeout_minutes) at: start.")
    assert lines_of(text)[0].startswith("rank 1 HANGS: its process has no heartbeat")


def test_a_rank_that_hears_nothing_of_the_store_leaves_with_a_word(ranks, ended, capsys, monkeypatch):
    """As where the cable to the first machine is pulled: a call neither returns nor fails."""
    (only,), silence = ranks(0, limits=DistributedConfig(update_timeout_minutes=0.5 / 60)), threading.Event()
    monkeypatch.setattr(watch, "_LATER_S", 0.2)
    monkeypatch.setenv("MASTER_ADDR", "node-a")
    time.sleep(1.0)
    assert not ended
    monkeypatch.setattr(only, "_beat", silence.wait)
    wait_for(lambda: ended)
    silence.set()
    assert ended == [(1, "polaris-guard")]
    assert "nothing was heard of node-a for 0.00833333 minutes (distributed.update_timeout_minutes)." in capsys.readouterr().err


def test_a_rank_that_goes_on_is_left_alone(ranks, ended):
    (only,) = ranks(0)
    for _ in range(30):
        only.move("pack")
        time.sleep(0.05)
    assert not ended, "1.5 s, and never 1 s without a move"
    wait_for(lambda: only._store.check([only._key("asked")]))
    only.limits = DistributedConfig()
    only.move("pack")
    time.sleep(10 * BEAT_S)
    assert not ended, "it went on while it asked the others"


def test_a_rank_that_has_failed_stands_where_it_did(ended):
    assert watch.where() == "", "nobody watches"
    watch.start(dist.HashStore(), 0, 2, LIMITS)
    places = [watch.where()]
    try:
        with watch.phase("rollout"):
            places.append(watch.where())
        places.append(watch.where())
        with watch.phase("update"):
            watch.mark("update, pack 1 of 2")
            places.append(watch.where())
            watch.mark("proximal log-probs")
            raise KeyError
    except KeyError:
        places.append(watch.where())
        assert not watch._watch.urgent, "and it may take its time to end"
    finally:
        watch.stop()
    assert places == ["at the start", "in rollout", "after rollout", "in update, pack 1 of 2", "in update, proximal log-probs"]


def test_a_phase_has_the_short_limit_only_for_collectives(monkeypatch, ended):
    places = []
    watch.start(dist.HashStore(), 0, 1, LIMITS)
    assert watch._watch is None, "one rank waits for nobody"
    watch.start(dist.HashStore(), 0, 2, DistributedConfig(update_timeout_minutes=1.0, wait_timeout_hours=2.0))
    try:
        one = watch._watch

        def look():
            places.append((one.place, one.urgent, round((one.deadline - time.monotonic()) / 60)))

        for name in ("update", "sync", "rollout"):
            with watch.phase(name):
                look()
                watch.mark(f"in {name}")
                look()
            look()
    finally:
        watch.stop()
    assert places == [
        entry
        for name, urgent in (("update", True), ("sync", True), ("rollout", False))
        for entry in ((name, urgent, 1 if urgent else 120), (f"in {name}", urgent, 1 if urgent else 120), (f"after {name}", False, 120))
    ]
    assert watch._watch is None
    assert not one._thread.is_alive()
    watch.mark("nobody watches")
