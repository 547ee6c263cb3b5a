"""Distinct 4-grams against a set of tuples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polaris.algorithm.diversity import distinct_tokens, distinct_words, of_pairs, word_grams_per_token_gram


def by_sets(sequences):
    grams = [tuple(sequence[i : i + 4]) for sequence in sequences for i in range(len(sequence) - 3)]
    return len(set(grams)) / len(grams) if grams else 0.0


tokens = st.sampled_from([0, 1, 2, 151_935, 2**31 - 1])


@given(st.lists(st.lists(tokens, max_size=12), max_size=6))
def test_tokens_are_counted_as_a_set_counts_them(sequences):
    assert distinct_tokens([np.array(sequence, np.int32) for sequence in sequences]) == by_sets(sequences)


@given(st.lists(st.text(alphabet="ab \n\t\u00a0\u2003x", max_size=40), max_size=6))
def test_words_are_what_split_leaves(texts):
    assert distinct_words(texts) == by_sets([text.split() for text in texts])


def test_many_tokens_give_no_false_equals():
    """A pair of tokens has rank up to n: ranks must not run into each other."""
    generator = np.random.default_rng(0)
    sequences = [generator.integers(151_936, size=3000).astype(np.int32) for _ in range(20)]
    sequences += sequences[:5]
    assert distinct_tokens(sequences) == by_sets([sequence.tolist() for sequence in sequences])


def test_the_share_is_pooled_over_rollouts():
    """Copies of one rollout are no diversity, which a mean of per-rollout shares would not see."""
    assert distinct_words(["a b c d e f g"] * 4) == 0.25


def test_of_pairs_does_not_depend_on_the_number_of_responses():
    """Responses of 30 tokens out of 3: a pooled share falls from two to eight of them, that of pairs stays."""
    generator = np.random.default_rng(0)
    groups = [list(generator.integers(0, 3, (8, 30)).astype(np.int32)) for _ in range(200)]
    two, eight = (np.mean([of_pairs(group[:n], distinct_tokens) for group in groups]) for n in (2, 8))
    assert abs(two - eight) < 0.01
    assert np.mean([distinct_tokens(group) for group in groups]) < two - 0.2


def test_an_odd_response_is_left_out_and_one_without_a_gram_counts_as_nothing():
    assert of_pairs(["a b c d", "a b c d", "e f g h"], distinct_words) == 0.5
    assert of_pairs(["a b c d", "e f g h", "a b", "c"], distinct_words) == 0.5
    assert of_pairs(["a b c d"], distinct_words) == 0.0


def test_grams_of_words_per_gram_of_tokens():
    assert word_grams_per_token_gram(["a b c d e", "a b c", ""], [np.arange(6), np.arange(3), np.arange(4)]) == 2 / 4
    assert word_grams_per_token_gram(["a b c d"], [np.arange(3)]) == 0.0
