"""Which groups take the places of those without a gradient."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polaris.algorithm.groups import substitute

BATCHES = st.lists(st.booleans(), min_size=1, max_size=40).flatmap(lambda kinds: st.tuples(st.just(kinds), st.integers(1, len(kinds))))


@given(BATCHES, st.integers(0, 2**63 - 1))
def test_informative_groups_keep_their_order_and_fill_the_places_evenly(batch, seed):
    kinds, places = batch
    informative = [index for index, kind in enumerate(kinds) if kind]
    trained = substitute(np.array(kinds), places, seed)
    assert trained == substitute(np.array(kinds), places, seed)
    counts = Counter(trained)
    assert set(counts) == set(informative)
    assert len(trained) == (max(places, len(informative)) if informative else 0)
    if informative:
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_copy_stands_where_the_group_without_gradient_stood():
    kinds = np.array([False, True, False, False, True, False])
    trained = substitute(kinds, 6, seed=3)
    assert [trained[1], trained[4]] == [1, 4]
    assert sorted(trained) == [1, 1, 1, 4, 4, 4]
    assert substitute(kinds, 3, seed=3)[1:] == [1, 4]
    assert substitute(kinds, 2, seed=3) == [1, 4]


def test_the_seed_decides_who_is_copied():
    kinds = np.array([True] * 8 + [False])
    copied = {substitute(kinds, 9, seed)[-1] for seed in range(100)}
    assert copied == set(range(8))


def test_the_choice_of_a_seed_is_pinned():
    """A run that is resumed under another version must train on the same copies."""
    kinds = np.array([True, False, True, True, False, False, True, False])
    assert substitute(kinds, 8, seed=0) == [0, 0, 2, 3, 3, 2, 6, 6]
    assert substitute(kinds, 8, seed=17) == [0, 6, 2, 3, 3, 0, 6, 2]
    assert substitute(kinds, 8, seed=2**63) == [0, 2, 2, 3, 3, 6, 6, 0]


def test_nothing_to_copy():
    assert substitute(np.zeros(4, bool), 4, seed=0) == []
