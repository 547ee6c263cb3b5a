"""The store of correct rollouts: the newest few of each prompt, the same after a checkpoint."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from groups import batch, group, same

from polaris.learn.success_buffer import FILE, SuccessBuffer

ARRAYS = ("tokens", "logprobs", "versions")


def texts(successes, name):
    return [success.text for success in successes.of(name)]


def test_only_the_newest_correct_responses_stay():
    successes = SuccessBuffer(2)
    for version, letters in enumerate(["+-+x+", "----", "-+00", "xxxx"]):
        successes.add([group("a", letters, version=version)])
    assert texts(successes, "a") == ["a/4/0", "a/1/2"]
    assert successes.of("b") == ()


def test_successes_of_dropped_prompts_are_forgotten():
    successes = SuccessBuffer(1)
    successes.add(batch(a="+", b="+"))
    successes.keep(["b", "c"])
    assert texts(successes, "a") == []
    assert len(texts(successes, "b")) == 1


def test_nothing_is_stored_without_rescue():
    successes = SuccessBuffer(0)
    successes.add(batch(a="++"))
    assert successes.of("a") == ()


@pytest.mark.parametrize("letters", [{}, {"a": "+-+", "b": "--", "c": "+"}])
def test_a_saved_store_comes_back_whole(tmp_path, letters):
    successes = SuccessBuffer(2)
    successes.add(batch(**letters))
    successes.save(tmp_path)
    other = SuccessBuffer(2)
    other.add(batch(z="+"))
    other.load(tmp_path)
    for name in [*letters, "z"]:
        first, second = successes.of(name), other.of(name)
        assert len(first) == len(second) == min(2, letters.get(name, "").count("+"))
        for a, b in zip(first, second, strict=True):
            assert same(a, b)
            assert [getattr(a.rollout, name).dtype for name in ARRAYS] == [getattr(b.rollout, name).dtype for name in ARRAYS]
    other.add([group("a", "+", version=9)])
    assert texts(other, "a")[-1] == "a/0/9"


def test_tokens_that_the_policy_only_read_stay_marked(tmp_path):
    (one,) = batch(a="++")
    mask = np.arange(len(one.rollouts[1].rollout.tokens)) % 2 == 0
    read = replace(one.rollouts[1], rollout=replace(one.rollouts[1].rollout, mask=mask))
    successes, other = SuccessBuffer(2), SuccessBuffer(2)
    successes.add([replace(one, rollouts=(one.rollouts[0], read))])
    mask_before, mask[:] = mask.copy(), False
    successes.save(tmp_path)
    other.load(tmp_path)
    for buffer in (successes, other):
        assert buffer.of("a")[0].rollout.mask is None
        assert buffer.of("a")[1].rollout.mask.tolist() == mask_before.tolist()
    pq.write_table(pq.read_table(tmp_path / FILE).drop_columns(["mask"]), tmp_path / FILE)  # as before there were several turns
    other.load(tmp_path)
    assert [success.rollout.mask for success in other.of("a")] == [None, None]


def test_a_rank_that_holds_no_arrays_stores_none():
    (one,) = batch(a="+")
    [known] = [replace(scored, text="", rollout=scored.rollout.without_arrays()) for scored in one.rollouts]
    successes = SuccessBuffer(1)
    successes.add([replace(one, rollouts=(known,))])
    [stored] = successes.of("a")
    assert [getattr(stored.rollout, name).strides for name in ARRAYS] == [(0,)] * 3
    assert [len(getattr(stored.rollout, name)) for name in ARRAYS] == [len(one.rollouts[0].rollout.tokens)] * 3
    assert stored.rollout.version == one.rollouts[0].rollout.version
