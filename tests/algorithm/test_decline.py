"""The hidden Markov model of a curve that rises, stays and falls: its prior by hand, and its posterior by adding up every path."""

from itertools import product

import numpy as np
import pytest

from polaris.algorithm.decline import COOLEST_IS_BEST, _noise, _posterior, _prior, chance_of_at_most


def test_prior_of_three_levels_at_three_temperatures():
    """States: level 0, 1, 2 from the best temperature on, then level 1, 2 before it."""
    start, step = _prior(3, 3)
    assert start.tolist() == pytest.approx([COOLEST_IS_BEST, 0, 0, (1 - COOLEST_IS_BEST) / 2, (1 - COOLEST_IS_BEST) / 2])
    holds = 0.5**0.5  # twice from coolest to hottest makes one half
    expected = [
        [holds, (1 - holds) / 2, (1 - holds) / 2, 0, 0],
        [0, 0.5, 0.5, 0, 0],
        [0, 0, 1, 0, 0],
        [0.5, 0, 0, 0.5, 0],
        [0.5, 0, 0, 0.25, 0.25],
    ]
    np.testing.assert_allclose(step, expected)


@pytest.mark.parametrize(("levels", "temperatures"), [(2, 2), (7, 5), (21, 9)])
def test_every_state_goes_somewhere(levels, temperatures):
    start, step = _prior(levels, temperatures)
    assert start.sum() == pytest.approx(1)
    np.testing.assert_allclose(step.sum(axis=1), 1)


def test_posterior_is_the_sum_over_all_paths():
    means, noise, levels = np.array([0.5, 0.52, 0.4]), np.array([0.03, 0.05, 0.04]), np.array([0.0, 0.1, 0.3])
    start, step = _prior(3, 3)
    losses = [0.0, 0.1, 0.3, 0.1, 0.3]
    truth = np.zeros((3, 3))
    for best in np.linspace(0.52 - 6 * 0.05, 0.52 + 4 * 0.05, 121):
        for path in product(range(5), repeat=3):
            if path[-1] >= 3:
                continue  # the best has not come
            weight = start[path[0]] * step[path[0], path[1]] * step[path[1], path[2]]
            for mean, error, state in zip(means, noise, path, strict=True):
                weight *= np.exp(-0.5 * ((mean - best * (1 - losses[state])) / error) ** 2)
            for place, state in enumerate(path):
                truth[place, levels.tolist().index(losses[state])] += weight
    np.testing.assert_allclose(_posterior(means, noise, levels), truth / truth.sum(axis=1, keepdims=True), rtol=1e-9)


def test_noise_leaves_out_how_much_prompts_differ():
    """Prompts of any difficulty that all answer to temperature in one way show none but the least; half of 0 and half of 1 at random do."""
    difficulty = np.linspace(0.1, 0.9, 40)
    steady = _noise(np.outer([1.0, 0.8, 0.6], difficulty))
    samples = 40 / 1e-3
    shrunk = (samples * np.array([0.5, 0.4, 0.3]) + 2) / (samples + 4)
    np.testing.assert_allclose(steady, np.sqrt(shrunk * (1 - shrunk) / samples))
    wild = _noise(np.random.default_rng(0).integers(0, 2, (3, 400)).astype(float))
    np.testing.assert_allclose(wild, 0.5 / 400**0.5, rtol=0.05)


def test_one_prompt_is_taken_as_exact():
    curve = np.array([[0.4], [0.5], [0.45], [0.48], [0.2]])
    assert chance_of_at_most(0.1, curve).tolist() == [0, 1, 1, 1, 0]
    assert chance_of_at_most(0.2, curve).tolist() == [1, 1, 1, 1, 0]
