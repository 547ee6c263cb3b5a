"""Diversity of rollouts: the share of distinct 4-grams (Li et al. 2016) in two responses to the same prompt, of words or of tokens.

1 is two responses that share nothing and repeat nothing, 1/2 are two equal ones. POLARIS counts words between white space, pooled over
all responses of a measurement. That share falls with their number; of pairs it does not, so the temperature probe can compare temperatures
that have more and fewer responses, and training can follow it over its steps. Longer responses repeat more: two values can be compared
only for like prompts and lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def of_pairs(responses: Sequence[T], share: Callable[[Sequence[T]], float]) -> float:
    """The mean `share` of the first and second, third and fourth, ... of the responses to one prompt; an odd last one is left out.

    >>> of_pairs(["a b c d", "a b c d", "a b c d", "a b c e"], distinct_words)
    0.75
    """
    shares = [share(responses[start : start + 2]) for start in range(0, len(responses) - 1, 2)]
    return sum(shares) / max(1, len(shares))


def distinct_words(texts: Iterable[str]) -> float:
    """Distinct word 4-grams of `texts` over all their word 4-grams; words are what `str.split` leaves. 0 where there is none."""
    index: dict[str, int] = {}
    return distinct_tokens([np.array([index.setdefault(word, len(index)) for word in text.split()], np.int32) for text in texts])


def word_grams_per_token_gram(texts: Iterable[str], sequences: Iterable[np.ndarray]) -> float:
    """4-grams of words of `texts` per 4-gram of tokens of `sequences`; 0 where no response has four tokens."""
    words = sum(max(0, len(text.split()) - 3) for text in texts)
    tokens = sum(max(0, len(sequence) - 3) for sequence in sequences)
    return words / tokens if tokens else 0.0


def distinct_tokens(sequences: Sequence[np.ndarray]) -> float:
    """Distinct 4-grams of `sequences` (each [n] of ids from 0 up to 2**31) over all their 4-grams. 0 where there is none.

    Exact: no 4-gram is hashed, none crosses from one sequence into the next. Peak memory is about 45 bytes per token.
    """
    if all(len(sequence) < 4 for sequence in sequences):
        return 0.0
    flat = np.concatenate(sequences).astype(np.int64)
    whole = np.ones(len(flat), bool)
    for end in np.cumsum([len(sequence) for sequence in sequences]):
        whole[max(0, end - 3) : end] = False
    pairs = _ranks(flat[:-1] << 32 | flat[1:])
    grams = (pairs[:-2] << 32 | pairs[2:])[whole[:-3]]
    grams.sort()
    return float((1 + np.count_nonzero(grams[1:] != grams[:-1])) / len(grams))


def _ranks(keys: np.ndarray) -> np.ndarray:
    """`keys` [n] int64 as numbers from 0, equal for equal keys."""
    order = np.argsort(keys)
    keys = keys[order]
    steps = np.zeros(len(keys), np.int64)
    np.cumsum(keys[1:] != keys[:-1], out=steps[1:])
    ranks = np.empty_like(steps)
    ranks[order] = steps
    return ranks
