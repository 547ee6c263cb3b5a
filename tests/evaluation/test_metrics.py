"""pass@k and maj@k against enumeration of every choice of samples."""

import itertools
from collections import Counter
from statistics import fmean

import pytest

from polaris.algorithm.rates import pass_at_k
from polaris.evaluation.metrics import CORRECT, bucket_of, counts_of_samples, maj_at_k, quartiles


@pytest.mark.parametrize("samples", [1, 2, 5, 9])
def test_pass_at_k_is_the_share_of_choices_with_a_correct_sample(samples):
    for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        flags = [True] * correct + [False] * (samples - correct)
        expected = fmean(any(choice) for choice in itertools.combinations(flags, k))
        assert pass_at_k(samples, correct, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_of_thousands_of_samples_neither_overflows_nor_rounds_to_nothing():
    assert pass_at_k(10_000, 1, 1) == pytest.approx(1e-4)
    assert pass_at_k(10_000, 5_000, 10_000) == 1.0


def broken_at_random(votes):
    """Chance that a tie broken at random ends in the correct class."""
    counted = Counter(vote for vote in votes if vote is not None)
    winners = [vote for vote in counted if counted[vote] == max(counted.values())]
    return fmean(winner is CORRECT for winner in winners) if winners else 0.0


@pytest.mark.parametrize(
    "votes",
    [
        [CORRECT, "1", "1", "2", CORRECT, None],
        [CORRECT, "1", None, None, "2", "3"],
        [None] * 4,
        ["1", "1", "1", CORRECT, CORRECT, CORRECT],
    ],
)
def test_maj_at_k_over_all_orders_is_the_mean_over_all_choices(votes):
    orders = list(itertools.permutations(votes))
    for k in range(1, len(votes) + 1):
        expected = fmean(broken_at_random(choice) for choice in itertools.combinations(votes, k))
        assert fmean(maj_at_k(order, k) for order in orders) == pytest.approx(expected, abs=1e-9)


def test_a_tie_counts_as_the_share_that_is_correct_and_silence_does_not_vote():
    assert maj_at_k([CORRECT, "7", None], 3) == 0.5
    assert maj_at_k([CORRECT, "7", "8"], 3) == pytest.approx(1 / 3)
    assert maj_at_k([CORRECT, None, None, None], 4) == 1.0
    assert maj_at_k(["7", "7", CORRECT], 3) == 0.0


@pytest.mark.parametrize(
    ("samples", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_counts_of_samples(samples, expected):
    assert counts_of_samples(samples) == expected


def test_buckets_begin_at_their_edge_and_quartiles_halve_halves():
    edges = (16_384, 32_768)
    assert [bucket_of(length, edges) for length in (0, 16_383, 16_384, 32_767, 32_768, 90_000)] == [0, 0, 1, 1, 2, 2]
    lengths = list(range(1, 401))
    cut = quartiles(lengths)
    sizes = Counter(bucket_of(length, cut) for length in lengths)
    assert len(sizes) == 4
    assert max(sizes.values()) - min(sizes.values()) <= 2
    assert quartiles([5] * 10) == (5,)
