"""The store of correct rollouts: the newest few of each prompt, the same after a checkpoint."""

import pytest
from groups import batch, group, same

from polaris.learn.success_buffer import SuccessBuffer

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
