"""The order of prompts: distinct, complete, and a pure function of (seed, epoch)."""

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
