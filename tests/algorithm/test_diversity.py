"""Distinct 4-grams against a set of tuples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polaris.algorithm.diversity import distinct_tokens, distinct_words, word_grams_per_token_gram


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


def test_grams_of_words_per_gram_of_tokens():
    assert word_grams_per_token_gram(["a b c d e", "a b c", ""], [np.arange(6), np.arange(3), np.arange(4)]) == 2 / 4
    assert word_grams_per_token_gram(["a b c d"], [np.arange(3)]) == 0.0
