"""The store of correct rollouts: the newest few of each prompt, the same after a checkpoint."""

import pytest
from groups import batch, group, prompt, same

from polaris.learn.rescue import store_successes
from polaris.learn.successes import Successes


def texts(successes, name):
    return [success.text for success in successes.of(name)]


def test_only_the_newest_correct_responses_stay():
    successes = Successes(2)
    for version, letters in enumerate(["+-+x+", "----", "-+00", "xxxx"]):
        store_successes(successes, [prompt("a")], [group("a", letters, version=version)])
    assert texts(successes, "a") == ["a/4/0", "a/1/2"]
    assert successes.of("b") == ()


def test_successes_of_dropped_prompts_are_forgotten():
    successes = Successes(1)
    store_successes(successes, *batch(a="+", b="+"))
    successes.keep(["b", "c"])
    assert texts(successes, "a") == []
    assert len(texts(successes, "b")) == 1


def test_nothing_is_stored_without_rescue():
    successes = Successes(0)
    store_successes(successes, *batch(a="++"))
    assert successes.of("a") == ()


@pytest.mark.parametrize("letters", [{}, {"a": "+-+", "b": "--", "c": "+"}])
def test_a_saved_store_comes_back_whole(tmp_path, letters):
    successes = Successes(2)
    store_successes(successes, *batch(**letters))
    successes.save(tmp_path)
    other = Successes(2)
    store_successes(other, *batch(z="+"))
    other.load(tmp_path)
    for name in [*letters, "z"]:
        first, second = successes.of(name), other.of(name)
        assert len(first) == len(second) == min(2, letters.get(name, "").count("+"))
        for a, b in zip(first, second, strict=True):
            assert same(a, b)
            assert (a.tokens.dtype, a.logprobs.dtype) == (b.tokens.dtype, b.logprobs.dtype)
    store_successes(other, [prompt("a")], [group("a", "+", version=9)])
    assert texts(other, "a")[-1] == "a/0/9"
