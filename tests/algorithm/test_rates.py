"""Intervals hold what they promise, at the edges too."""

import numpy as np
import pytest

from polaris.algorithm.rates import wilson_interval


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("easy", "hard", "prompts", "samples"), [(1, 2, 60, 8), (0.2, 3.8, 30, 8), (30, 60, 60, 8), (2, 1, 12, 4)])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(level, easy, hard, prompts, samples):
    """Prompts of varying difficulty: the truth is the mean over all prompts that could have been asked."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        accuracy = generator.binomial(samples, generator.beta(easy, hard, prompts)) / samples
        low, high = wilson_interval(accuracy, level)
        held += low <= easy / (easy + hard) <= high
    assert abs(held / 1000 - level) < 0.04


@pytest.mark.parametrize(("solved", "low", "high"), [(0, 0, 0.11351), (30, 0.88649, 1), (15, 0.33154, 0.66846), (1, 0.00591, 0.16670)])
def test_of_zeros_and_ones_it_is_wilsons(solved, low, high):
    """R: binom::binom.confint(k, 30, methods = "wilson")."""
    assert wilson_interval(np.array([1.0] * solved + [0.0] * (30 - solved))) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("solved", [0.0, 1.0])
def test_nothing_and_everything_are_ends_of_it_whatever_was_rounded(solved):
    ends = [wilson_interval(np.full(prompts, solved))[int(solved)] for prompts in range(1, 200)]
    assert set(ends) == {solved}


def test_prompts_that_are_alike_say_more_than_ones_that_differ():
    alike, apart = np.full(30, 0.5), np.array([1.0, 0.0] * 15)
    narrow, wide = (np.subtract(*reversed(wilson_interval(values))) for values in (alike, apart))
    assert 0 < narrow < wide / 4


def test_one_prompt_is_never_certain():
    low, high = wilson_interval(np.array([1.0]))
    assert (low, high) == (pytest.approx(0.2065, abs=1e-4), 1.0)


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(np.array([]))
