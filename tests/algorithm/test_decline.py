"""The hidden Markov model of a curve that rises, stays and falls: its prior by hand, and its posterior by adding up every path."""

from itertools import product

import numpy as np
import pytest

from polaris.algorithm.decline import CHANGES, COOLEST_IS_BEST, HOLDS, SPEEDS, _posterior, _prior, chances_of_at_most, standard_errors
from polaris.algorithm.zones import find_zones


def test_prior_of_three_levels_at_three_temperatures():
    """States: level 0, 1, 2 from the best temperature on, then level 1, 2 before it. The way: small changes (SPEEDS) at few steps."""
    levels = np.array([0, 0.01, 0.02])
    start, ways = _prior(levels, 3)
    assert start.tolist() == pytest.approx([COOLEST_IS_BEST, 0, 0, (1 - COOLEST_IS_BEST) / 2, (1 - COOLEST_IS_BEST) / 2])
    assert len(ways) == len(SPEEDS) * len(CHANGES)
    assert (SPEEDS[0], CHANGES[1]) == (0.01, 0.1)
    holds = HOLDS**0.5  # twice from coolest to hottest
    once, twice = np.exp(-1), np.exp(-2)
    of_three, of_two = 1 + once + twice, 1 + once
    falls = [1 / of_three, once / of_three, twice / of_three], [1 / of_two, once / of_two]
    # A rise is a fall read backwards.
    half_risen, risen = np.array([falls[0][1], falls[1][0]]), np.array([falls[0][2], falls[1][1], 1])
    half_risen, risen = half_risen / half_risen.sum(), risen / risen.sum()
    expected = [
        [holds + (1 - holds) * falls[0][0], (1 - holds) * falls[0][1], (1 - holds) * falls[0][2], 0, 0],
        [0, 0.9 + 0.1 * falls[1][0], 0.1 * falls[1][1], 0, 0],
        [0, 0, 1, 0, 0],
        [0.1 * half_risen[0], 0, 0, 0.9 + 0.1 * half_risen[1], 0],
        [0.1 * risen[0], 0, 0, 0.1 * risen[1], 0.9 + 0.1 * risen[2]],
    ]
    np.testing.assert_allclose(ways[1], expected)


@pytest.mark.parametrize(("levels", "temperatures"), [([0, 1], 2), ([0, 0.01, 0.02, 0.1, 0.5, 1], 5), (np.linspace(0, 1, 21) ** 2, 9)])
def test_every_state_goes_somewhere(levels, temperatures):
    start, ways = _prior(np.array(levels), temperatures)
    assert start.sum() == pytest.approx(1)
    np.testing.assert_allclose(ways.sum(axis=2), 1)


def test_posterior_is_the_sum_over_all_paths_of_all_ways():
    means, noise, levels = np.array([0.5, 0.52, 0.4]), np.array([0.03, 0.05, 0.04]), np.array([0.0, 0.1, 0.3])
    start, ways = _prior(levels, 3)
    losses = [0.0, 0.1, 0.3, 0.1, 0.3]
    truth = np.zeros((3, 3))
    for step, best in product(ways, np.linspace(0.52 - 6 * 0.05, 0.52 + 4 * 0.05, 21)):
        for path in product(range(5), repeat=3):
            if path[-1] >= 3:
                continue  # the best has not come
            weight = start[path[0]] * step[path[0], path[1]] * step[path[1], path[2]]
            for mean, error, state in zip(means, noise, path, strict=True):
                weight *= np.exp(-0.5 * ((mean - best * (1 - losses[state])) / error) ** 2)
            for place, state in enumerate(path):
                truth[place, levels.tolist().index(losses[state])] += weight
    np.testing.assert_allclose(_posterior(means, noise, levels), truth / truth.sum(axis=1, keepdims=True), rtol=1e-6)


def test_a_long_grid_and_many_prompts_stay_within_the_range_of_numbers():
    """Fifty temperatures with standard errors of 1 %, half of them near 0."""
    curve = np.append(np.ones(25), np.full(25, 0.01))
    accuracy = curve[:, None] * np.tile([0.4, 0.6], 200)
    kept, collapsed = chances_of_at_most((0.03, 0.3), accuracy, np.full(50, 8), times_prompts=64)
    assert kept[:20].min() > 0.9
    assert collapsed[25:].max() < 0.01


def test_noise_leaves_out_how_much_prompts_differ():
    """Prompts of any difficulty that all answer to temperature in one way show none but the least; half of 0 and half of 1 at random do."""
    difficulty = np.linspace(0.1, 0.9, 40)
    eight = np.full(3, 8)
    steady = standard_errors(np.outer([1.0, 0.8, 0.6], difficulty), eight)
    samples = 40 / 1e-3
    shrunk = (samples * np.array([0.5, 0.4, 0.3]) + 2) / (samples + 4)
    np.testing.assert_allclose(steady, np.sqrt(shrunk * (1 - shrunk) / samples))
    wild = standard_errors(np.random.default_rng(0).integers(0, 2, (3, 400)).astype(float), eight)
    np.testing.assert_allclose(wild, 0.5 / 400**0.5, rtol=0.05)


def test_noise_falls_with_the_responses_of_each_temperature():
    """Prompts of one rate: standard errors of the binomial, whatever the others had."""
    samples, generator = np.array([2, 4, 16]), np.random.default_rng(0)
    accuracy = generator.binomial(samples[:, None], 0.4, (3, 2000)) / samples[:, None]
    np.testing.assert_allclose(standard_errors(accuracy, samples), np.sqrt(0.4 * 0.6 / samples / 2000), rtol=0.05)


def test_one_prompt_is_taken_as_exact():
    curve = np.array([[0.4], [0.5], [0.45], [0.48], [0.2]])
    assert chances_of_at_most((0.1, 0.2), curve, np.full(5, 8)).tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 1, 0]]


def test_a_temperature_at_which_nothing_was_solved_is_not_chosen_over_one_that_solved_something():
    accuracy = np.array([[0, 0, 0], [0.5, 0.5, 0.75], [0.25, 0.75, 0.25], [0.75, 0, 0]])
    assert find_zones(np.array([0.2, 0.4, 0.6, 0.8]), accuracy, np.arange(4.0), np.full(4, 4), tolerance=0.01).initial > 0.2
