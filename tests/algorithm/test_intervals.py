"""Bootstrap intervals hold what they promise."""

import numpy as np
import pytest

from polaris.algorithm.intervals import bootstrap_interval


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(level):
    """Prompts of varying difficulty, 8 samples each: the truth is the mean over all prompts that could have been asked."""
    generator = np.random.default_rng(3)
    held = 0
    for seed in range(400):
        accuracy = generator.binomial(8, generator.beta(1, 2, 60)) / 8
        low, high = bootstrap_interval(accuracy, seed, level)
        held += low <= 1 / 3 <= high
    assert abs(held / 400 - level) < 0.05


def test_many_values_are_drawn_in_parts_and_give_the_same_for_the_same_seed():
    values = np.random.default_rng(4).random(20_000)
    low, high = bootstrap_interval(values, seed=5)
    assert (low, high) == bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20_000**0.5, rel=0.1)


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(np.array([]), seed=0)
