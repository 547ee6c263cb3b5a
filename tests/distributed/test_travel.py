"""Rollouts on three ranks: rank 0 has all of them in full, every other rank the arrays of those that it trains on, and facts of all."""

import pickle
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from groups import same, scored
from programs import run_ranks

sys.path.insert(0, str(Path(__file__).parent))
import travel_on_ranks
from travel_on_ranks import RANKS, drawn, second_step

from polaris.distributed.travel import deal, gather_scored
from polaris.learn.packing import TrainingSample, build_pack

pytestmark = pytest.mark.distributed
FACTS = ("prompt_id", "sample", "finish_reason", "temperature", "seed", "version", "read", "turns")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(RANKS, travel_on_ranks.__file__, folder)
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in range(RANKS)]


def identical(found, wanted):
    """As `same`, with lone surrogates in texts, and types of numbers."""
    arrays = [(getattr(one.rollout, name) for name in ("tokens", "logprobs", "versions", "mask")) for one in (found, wanted)]
    return same(found, wanted) and all(getattr(a, "dtype", None) == getattr(b, "dtype", None) for a, b in zip(*arrays, strict=True))


@pytest.mark.parametrize(("name", "step"), [("first", 0), ("second", 1)])
def test_rank_0_has_everything_and_the_others_all_but_texts_and_arrays(ranks, name, step):
    wanted = drawn(step)
    assert {scored.rollout.mask is None for scored in wanted} == {True, False}
    assert {len(set(scored.rollout.versions.tolist())) for scored in wanted} == {1, 2}
    main, *others = (rank[name] for rank in ranks)
    assert len(main) == len(wanted)
    assert all(map(identical, main, wanted))
    for other in others:
        assert [one.verdict for one in other] == [one.verdict for one in wanted]
        for found, whole in zip(other, wanted, strict=True):
            assert [getattr(found.rollout, fact) for fact in FACTS] == [getattr(whole.rollout, fact) for fact in FACTS]
            assert found.rollout.versions.tolist() == whole.rollout.versions.tolist()
            assert np.array_equal(found.rollout.mask, whole.rollout.mask)
            assert found.rollout.tokens.tolist() == [-1] * len(whole.rollout.tokens)
            assert np.isnan(found.rollout.logprobs).all()
            assert len(found.rollout.logprobs) == len(whole.rollout.logprobs)
            assert found.text == ""


def test_what_a_rank_does_not_train_takes_no_memory_on_it(ranks):
    lengths = [len(one.rollout.tokens) for step in range(2) for one in drawn(step)]
    assert ranks[0]["memory"] == [8 * length for length in lengths]
    for rank in ranks[1:]:
        assert set(rank["memory"]) == set(rank["memory_of_successes"]) == {8}, "one token and one log-prob stand for all"
    assert min(ranks[0]["memory_of_successes"]) >= 8 * 3


def test_every_rank_trains_the_same_batch_and_holds_its_own_share_of_it(ranks):
    _, batch = second_step(drawn(0), drawn(1))
    wanted = batch.samples
    assert len(batch.rescued) == 2
    assert max(Counter(batch.trained).values()) > 1, "some group is trained twice"
    assert sorted(i for rank in ranks for pack in rank["plan"] for i in pack) == list(range(len(wanted)))
    for number, rank in enumerate(ranks):
        own = {i for pack in rank["plan"] for i in pack}
        for i, (found, whole) in enumerate(zip(rank["samples"], wanted, strict=True)):
            again = any(wanted[j].rollout is whole.rollout for j in own)  # a copy of its group is this rank's
            assert same(found.rollout, whole.rollout) == (number == 0 or again), (number, i)
            assert replace(found, rollout=whole.rollout) == whole
        assert rank["packs"] == [build_pack([wanted[i] for i in pack], torch.device("cpu")).tokens.tolist() for pack in rank["plan"]]


def test_stored_successes_come_from_rank_0(ranks):
    """Rank 0 alone has what rescued a and c, and another rank trains one of them or both."""
    _, batch = second_step(drawn(0), drawn(1))
    trained_elsewhere = [
        batch.samples[i].rollout.prompt_id for rank in ranks[1:] for pack in rank["plan"] for i in pack if batch.samples[i].stored
    ]
    assert trained_elsewhere
    for rank in ranks[1:]:
        assert [len(of_prompt) for of_prompt in rank["successes"]] == [1, 0, 1, 1]
        assert all(one.text == "" and (one.rollout.tokens == -1).all() for of_prompt in rank["successes"] for one in of_prompt)


def test_bytes_that_travel(ranks):
    sent = [travel_on_ranks.share(drawn(step), rank) for rank in range(RANKS) for step in range(2)]
    sizes = [sum(8 * len(one.rollout.tokens) + len(one.text.encode("utf-8", "surrogatepass")) for one in part) for part in sent]
    assert [rank["gathered_bytes"] for rank in ranks] == [0, 0, sizes[4] + sizes[5]], "nobody sends to any but rank 0"
    _, batch = second_step(drawn(0), drawn(1))
    wanted = 0
    for rank in ranks[1:]:
        once = {id(rollout): len(rollout.tokens) for pack in rank["plan"] for rollout in (batch.samples[i].rollout for i in pack)}
        wanted += 8 * sum(once.values())
    assert [rank["dealt_bytes"] for rank in ranks] == [wanted, 0, 0], "once to each rank that trains it"


def test_one_rank_keeps_its_own_objects(world):
    everything = drawn(0)
    assert all(a is b for a, b in zip(gather_scored(everything, world), everything, strict=True))
    rollouts = [one.rollout for one in everything]
    assert all(a is b for a, b in zip(deal([rollouts], world), rollouts, strict=True))


def test_no_model_sees_a_token_that_another_rank_holds():
    rollout = scored("a", 0, "+").rollout.without_arrays()
    with pytest.raises(AssertionError, match="another rank"):
        build_pack([TrainingSample(prompt_tokens=(1,), rollout=rollout, advantage=1.0)], torch.device("cpu"))
