"""Complete groups, counted over engines that share a store, and when a step has enough of them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from groups import prompt, scored
from torch.distributed import HashStore

from polaris.sampling.board import Board, Enough
from polaris.types import Group


def differ(group):
    return len({one.verdict.reward for one in group.rollouts}) > 1


def boards(outstanding, enough=None, count=2):
    store = HashStore()
    return store, [Board(outstanding, {name: prompt(name) for name in outstanding}, store, "draw", enough) for _ in range(count)]


def test_a_group_is_complete_with_its_last_sample_on_whichever_engine():
    _, (one, two) = boards({"a": 2, "b": 3})
    one.add(scored("a", 0, "+"))
    two.add(scored("b", 0, "-"))
    assert one.complete == two.complete == 0
    two.add(scored("a", 1, "+"))
    assert one.complete == two.complete == 1
    assert not one.has_enough, "nobody has asked for an early end"


def test_enough_are_groups_that_teach_by_verdicts_of_all_engines():
    heard = []

    def teaches(group: Group):
        heard.append([(one.rollout.sample, one.verdict.kind, len(one.rollout.tokens)) for one in group.rollouts])
        return differ(group)

    _, (one, two) = boards({"a": 2, "b": 2, "c": 2}, Enough(groups=2, teaches=teaches))
    samples = {
        (name, n): scored(name, n, letter)
        for name, letters in {"a": "+-", "b": "++", "c": "-+"}.items()
        for n, letter in enumerate(letters)
    }
    two.add(samples["a", 1])
    one.add(samples["a", 0])
    one.add(samples["b", 0])
    one.add(samples["b", 1])
    one.add(samples["c", 0])
    assert (one.complete, one.has_enough, two.has_enough) == (2, False, False), "b teaches nothing"
    two.add(samples["c", 1])
    assert one.has_enough
    assert two.has_enough
    lengths = {key: len(sample.rollout.tokens) for key, sample in samples.items()}
    assert heard[0] == [(0, "correct", lengths["a", 0]), (1, "wrong", lengths["a", 1])], "in the order of the samples"


@pytest.mark.parametrize(("due", "ready"), [(frozenset(), True), (frozenset("b"), True), (frozenset("c"), False), (frozenset("bc"), False)])
def test_what_was_complete_before_counts_and_what_is_due_is_waited_for(due, ready):
    before = {"a": [scored("a", 0, "+"), scored("a", 1, "-")], "b": [scored("b", 0, "-"), scored("b", 1, "+")], "c": [scored("c", 0, "+")]}
    _, (one, two) = boards({"a": 0, "b": 0, "c": 1}, Enough(groups=2, teaches=differ, due=due, before=before))
    assert one.complete == 2
    assert one.has_enough == two.has_enough == ready
    two.add(scored("c", 1, "+"))
    assert one.has_enough
    assert one.complete == 3


def test_every_group_is_counted_once_however_its_samples_race():
    samples = [(name, number) for number in range(8) for name in "abcdefgh"]
    store, (one, two) = boards(dict.fromkeys("abcdefgh", 8), Enough(groups=8, teaches=differ))
    with ThreadPoolExecutor(8) as pool:
        add = lambda sample: (one if sample[1] % 3 else two).add(scored(*sample, "+-"[sample[1] % 2]))  # noqa: E731
        list(pool.map(add, samples))
    assert one.complete == 8
    assert one.has_enough
    for key in one.keys:
        store.delete_key(key)
    assert not store.num_keys(), "it names all that it leaves"


def test_an_engine_alone_waits_for_verdicts_only_when_they_could_be_enough():
    _, (one,) = boards({"a": 1, "b": 2}, Enough(groups=1, teaches=differ), count=1)
    one.ended(scored("b", 0, "+").rollout)
    assert not one.could_have_enough
    one.ended(scored("b", 1, "+").rollout)
    assert one.could_have_enough
