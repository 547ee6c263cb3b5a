"""The queue over all engines: who gets which request, in which order, and that each goes to one engine."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed import HashStore

from polaris.rollout.types import RolloutRequest
from polaris.sampling.queue import NOTHING, Queue, bunches, deal, longest_first


def requests_of(*prompts, samples=1):
    return [RolloutRequest(prompt_id=name, sample=sample, prompt_tokens=(1,), seed=0) for name in prompts for sample in range(samples)]


def names(requests):
    return "".join(f"{request.prompt_id}{request.sample}" for request in requests)


@pytest.mark.parametrize(
    ("expected", "first", "order"),
    [
        ({}, (), "a0a1b0b1c0c1"),
        ({}, ("c",), "c0c1a0a1b0b1"),
        ({"a": 5, "b": 50, "c": 10}, (), "b0b1c0c1a0a1"),
        ({"a": 5, "c": 10}, (), "c0c1b0b1a0a1"),  # b counts as 7.5
        ({"b": 50, "c": 10}, ("a", "c"), "a0a1c0c1b0b1"),  # a counts as 30
    ],
)
def test_the_longest_come_first_behind_what_was_carried_over(expected, first, order):
    assert names(longest_first(requests_of("a", "b", "c", samples=2), expected, first)) == order


@given(st.integers(0, 300), st.integers(1, 9))
def test_every_lane_gets_as_many_and_its_share_of_the_longest(count, lanes):
    dealt = deal(count, lanes)
    assert sorted(number for lane in dealt for number in lane) == list(range(count))
    assert all(lane == sorted(lane) for lane in dealt)
    for lane in dealt:
        for turn, number in enumerate(lane):
            assert number // lanes == turn, "one of every so many neighbours"
    sums = [sum(lane) for lane in dealt if len(lane) == -(-count // lanes)]
    assert not sums or max(sums) - min(sums) <= lanes


@settings(max_examples=30)
@given(
    st.integers(0, 60),
    st.integers(1, 5),
    st.lists(st.integers(1, 9), min_size=5, max_size=5),
    st.lists(st.integers(0, 9), min_size=5, max_size=5),
)
def test_engines_that_race_get_every_request_once(count, lanes, mosts, runnings):
    requests, store, together = requests_of(*map(str, range(count)), samples=3), HashStore(), Barrier(lanes)
    expected = {str(number): 1 / (1 + number % 3) for number in range(count)}

    def engine(lane):
        queue, found = Queue(requests, expected, lanes, store, "draw"), []
        together.wait()
        while (claim := queue.claim(lane, mosts[lane], 0))[2]:
            found.append(queue.requests(claim))
            assert 1 <= len(found[-1]) <= mosts[lane]
        return [request for part in found for request in part]

    with ThreadPoolExecutor(lanes) as pool:
        found = list(pool.map(engine, range(lanes)))
    assert sorted(names([request]) for part in found for request in part) == sorted(names([request]) for request in requests)


@pytest.mark.parametrize(
    ("length", "sizes"),
    [(None, [1] * 8), (4000, [1] * 8), (140, [1] * 8), (139, [2] * 4), (50, [3, 3, 2]), (22, [7, 1]), (2, [8]), (0, [8])],
)
def test_samples_of_a_long_prompt_with_short_responses_stay_together(length, sizes):
    (one,) = requests_of("a")
    requests = [replace(one, prompt_id=name, sample=sample, prompt_tokens=(1,) * 140) for name in "ab" for sample in range(8)]
    expected = {} if length is None else {"a": length}  # b counts as the mean
    assert [len(bunch) for bunch in bunches(requests, expected)] == sizes * 2
    assert [number for bunch in bunches(requests, expected) for number in bunch] == list(range(16))
    queues = [Queue(requests, expected, 2, HashStore(), "draw") for _ in range(2)]
    read = sum(len({request.prompt_id for request in queue.lane(lane)}) for lane, queue in enumerate(queues))
    assert read == (2 if len(sizes) == 1 else 4), "prompts that engines read"
    going_on = [replace(request, max_tokens=9) for request in requests]
    assert [len(bunch) for bunch in bunches(going_on, {"a": 2})] == [1] * 16, "each has tokens of its own to read"


def test_an_engine_helps_the_fullest_one_with_a_request_at_a_time_as_soon_as_it_runs_fewer_than_it_had():
    requests, store = requests_of(*"abcdefghijkl"), HashStore()
    first, second, third = (Queue(requests, {}, 3, store, "draw") for _ in range(3))  # lanes afgl, behk, cdij
    assert names(first.requests(first.claim(0, 4, 0))) == "a0f0g0l0"
    assert first.claim(0, 4, 4) == NOTHING, "as many as it had still run"
    assert names(second.requests(second.claim(1, 2, 0))) == "b0e0"
    assert names(first.requests(first.claim(0, 4, 3))) == "c0"
    assert names(first.requests(first.claim(0, 4, 3))) == "d0"
    assert names(third.requests(third.claim(2, 9, 0))) == "i0j0"
    assert names(third.requests(third.claim(2, 9, 2))) == "h0"


@pytest.mark.parametrize(("samples", "takes"), [(8, 4), (1, 1)])
def test_an_engine_whose_lane_is_empty_helps_with_its_part(samples, takes):
    """As where the other one is lost: all samples of a prompt were dealt to it."""
    requests = [replace(one, prompt_tokens=(1,) * 400) for one in requests_of("a", samples=samples)]
    queue, running = Queue(requests, {"a": 2.0}, 2, HashStore(), "draw"), 0
    assert not queue.lane(1)
    while queue.claim(1, 8, running)[2]:
        running += 1
    assert running == takes


def test_what_is_closed_gives_nothing_to_anyone():
    requests, store = requests_of(*"abcdef"), HashStore()
    first, second = (Queue(requests, {}, 2, store, "draw") for _ in range(2))
    assert first.claim(0, 1, 0)[2] == 1
    second.close()
    assert first.claim(0, 3, 0) == second.claim(1, 3, 0) == NOTHING
