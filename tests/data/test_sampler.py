"""The order of prompts: distinct, complete, and a pure function of (seed, epoch)."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.data.sampler import Sampler

SIZES = st.integers(1, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))


@given(SIZES, st.integers(0, 2**63), st.integers(1, 4))
def test_each_epoch_takes_every_index_at_most_once_and_all_but_the_tail(sizes, seed, epochs):
    size, batch = sizes
    sampler = Sampler(size, batch, seed)
    for epoch in range(epochs):
        taken = [index for _ in range(size // batch) for index in sampler.next()]
        assert sampler.state() == {"epoch": epoch, "cursor": size // batch * batch}
        assert len(set(taken)) == len(taken) == size // batch * batch
        assert set(taken) <= set(range(size))


@given(SIZES, st.integers(0, 2**63), st.integers(0, 30))
def test_restored_sampler_continues_as_if_never_interrupted(sizes, seed, steps):
    size, batch = sizes
    first = Sampler(size, batch, seed)
    for _ in range(steps):
        first.next()
    second = Sampler(size, batch, seed)
    second.restore(first.state())
    assert [first.next() for _ in range(5)] == [second.next() for _ in range(5)]


def test_order_depends_on_seed_and_epoch():
    orders = [tuple(sampler.next()) for seed in (0, 1) for sampler in [Sampler(100, 100, seed)] for _ in range(2)]
    assert len(set(orders)) == 4


def test_order_is_the_same_in_another_process():
    program = "from polaris.data.sampler import Sampler; s = Sampler(50, 7, 3); print([s.next() for _ in range(9)])"
    sampler = Sampler(50, 7, 3)
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == str([sampler.next() for _ in range(9)])


def test_first_indices_are_roughly_uniform():
    firsts = [Sampler(10, 1, seed).next()[0] for seed in range(2000)]
    assert all(140 < firsts.count(index) < 260 for index in range(10))


def test_too_small_set_and_foreign_state_are_refused():
    with pytest.raises(ValueError, match=r"5 prompts do not fill one step of 6; lower trainer\.prompts_per_step"):
        Sampler(5, 6, 0)
    with pytest.raises(ValueError, match="does not fit a set of 5 prompts"):
        Sampler(5, 2, 0).restore({"epoch": 0, "cursor": 6})


# The ranks of seven words of Philox with the key (5, epoch), two batches of three per epoch.
BATCHES_OF_SEED_5 = [[2, 4, 3], [1, 5, 0], [4, 5, 1], [6, 0, 2], [3, 5, 2], [1, 0, 6]]


def test_the_order_of_a_seed_is_pinned():
    sampler = Sampler(7, 3, 5)
    assert [sampler.next() for _ in range(6)] == BATCHES_OF_SEED_5


@pytest.mark.parametrize("drawn", range(6))
def test_draws_after_a_load_are_those_that_would_have_followed_the_save(drawn):
    saved = Sampler(7, 3, 5)
    for _ in range(drawn):
        saved.next()
    loaded = Sampler(7, 3, 5)
    loaded.next()
    loaded.restore(json.loads(json.dumps(saved.state())))
    assert [loaded.next() for _ in range(6 - drawn)] == BATCHES_OF_SEED_5[drawn:]


@pytest.mark.parametrize(
    ("size", "batch", "left"), [(7, 3, [2, 1, 0, 1, 0]), (9, 3, [3, 2, 1, 0, 2]), (10, 4, [2, 1, 0, 1, 0]), (5, 5, [1, 0, 0, 0, 0])]
)
def test_batches_left_of_an_epoch_also_where_the_batch_does_not_divide_the_set(size, batch, left):
    sampler = Sampler(size, batch, 0)
    found = []
    for _ in left:
        found.append(sampler.batches_left)
        sampler.next()
    assert found == left


@pytest.mark.parametrize(("before", "batch", "after"), [(8, 5, [5, 5, 4]), (4, 6, [6, 6, 4]), (6, 4, [4, 4, 4])])
def test_with_batches_of_another_size_a_resumed_epoch_still_ends_with_a_step(before, batch, after):
    """24 prompts, of which two batches were drawn with the old size."""
    sampler = Sampler(24, batch, 1)
    sampler.restore({"epoch": 0, "cursor": 2 * before})
    left = (24 - 2 * before) // batch
    epochs = []
    for _ in range(left + 24 // batch):
        sampler.next()
        epochs.append(sampler.state()["epoch"])
    assert epochs == [0] * left + [1] * (24 // batch)
    assert sampler.batches_left == 0


def test_prompts_that_a_step_goes_on_with_are_drawn_later_and_the_position_remembers_them():
    sampler = Sampler(7, 2, 5, most=3)
    order = [index for batch in ([2, 4, 3, 1, 5, 0, 6], [4, 5, 1, 6, 0, 2, 3]) for index in batch]
    assert sampler.next(1, 3) == order[:3]
    assert sampler.next(2, 2, {order[3], order[4]}) == order[5:7], "those of another step are left out"
    assert sampler.state() == {"epoch": 0, "cursor": 7, "deferred": order[3:5]}
    again = Sampler(7, 2, 5, most=3)
    again.restore(json.loads(json.dumps(sampler.state())))
    for one in (sampler, again):
        assert one.next(3, 3) == [*order[3:5], order[7]], "and then they come first"
        assert "deferred" not in one.state()


def test_a_set_must_fill_a_step_that_begins_more_prompts_than_it_takes():
    Sampler(6, 4, 0, most=6)
    with pytest.raises(ValueError, match=r"a step begins 6 prompts \(rollout\.oversample\), but there are 5; lower it, or add prompts"):
        Sampler(5, 4, 0, most=6)
