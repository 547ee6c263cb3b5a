"""Zones against the ones that POLARIS published, and under noise."""

import numpy as np
import pytest

from polaris.algorithm.zones import NoAccuracy, find_zones, first_collapsed
from polaris.config.recipe import ProbeConfig

GRID, TOLERANCE = np.array(ProbeConfig().temperatures), ProbeConfig().tolerance


def zones(temperatures, accuracy, diversity):
    """From means without noise: one prompt stands for the whole set."""
    return find_zones(np.array(temperatures), np.array(accuracy)[:, None], np.array(diversity), tolerance=TOLERANCE, seed=0)


def rollouts(curve, seed, prompts=60, samples=8):
    """avg@8 of 60 prompts of all difficulties, whose pass rates fall as the curve does."""
    generator = np.random.default_rng(seed)
    rates = generator.beta(0.6, 0.6, prompts) * np.array(curve)[:, None]
    return generator.binomial(samples, rates) / samples


@pytest.mark.parametrize("at_1_4", [73.5, 73.8, 74.1])
def test_zones_of_qwen3_4b_are_the_published_ones(at_1_4):
    """Accuracy on AIME24 and diversity as read from the blog's plots, which give no number at 1.4: "robust up to 1.4" bounds it."""
    found = zones(
        [0.6, 0.8, 1.4, 1.45, 1.5, 1.55, 1.6, 1.7],
        [73.8, 74.2, at_1_4, 73.2, 70.2, 67.8, 50.0, 32.7],
        [42, 44, 63, 68, 73, 78, 84, 90],
    )
    assert (found.robust_from, found.robust_to, found.exploration_to, found.collapse_from) == (0.6, 1.4, 1.55, 1.6)
    assert found.initial == 1.4
    assert [found.of(t) for t in (0.8, 1.4, 1.45, 1.55, 1.6)] == ["robust generation"] * 2 + ["controlled exploration"] * 2 + [
        "performance collapse"
    ]


def test_zones_of_r1_distill_7b_hold_the_published_ones():
    """The blog: robust 0.4-0.7, exploration 0.7-1.0, collapse above. Its plot has no point between 0.6 and 1.0."""
    found = zones([0.6, 1.0, 1.2, 1.4], [55, 42, 11.5, 0], [57, 80, 91, 99])
    assert found.robust_to == found.initial == 0.6  # the last point up to 0.7
    assert (found.exploration_to, found.collapse_from) == (1.0, 1.2)


def test_a_cooler_temperature_that_loses_accuracy_is_not_robust():
    found = zones([0.2, 0.4, 0.6, 0.8], [0.3, 0.5, 0.5, 0.2], [0.9, 0.5, 0.6, 0.7])
    assert (found.of(0.2), found.robust_from, found.initial) == ("too cool", 0.4, 0.6)


def test_diversity_that_falls_with_temperature_is_followed():
    assert zones([0.6, 0.8, 1.0], [0.5, 0.5, 0.5], [0.4, 0.7, 0.6]).initial == 0.8


def test_where_collapse_is_never_reached_exploration_goes_to_the_end():
    found = zones([0.6, 0.8, 1.0], [0.5, 0.5, 0.45], [0.4, 0.5, 0.6])
    assert (found.robust_to, found.exploration_to, found.collapse_from) == (0.8, 1.0, None)


def test_accuracy_that_comes_back_after_a_collapse_does_not_extend_exploration():
    assert zones([0.6, 0.8, 1.0, 1.2], [0.5, 0.1, 0.5, 0.1], [0.4, 0.5, 0.6, 0.7]).collapse_from == 0.8


def test_noise_on_a_flat_curve_is_rarely_taken_for_a_decline():
    found = [find_zones(GRID, rollouts([1.0] * 9, seed), GRID, tolerance=TOLERANCE, seed=0) for seed in range(40)]
    assert sum(zone.initial == 1.8 for zone in found) >= 34
    assert all(zone.collapse_from is None for zone in found)


def test_a_collapse_is_found_under_noise():
    curve = [0.9, 0.97, 1, 1, 1, 0.98, 0.9, 0.5, 0.1]
    found = [find_zones(GRID, rollouts(curve, seed), GRID, tolerance=TOLERANCE, seed=0) for seed in range(40)]
    assert all(zone.collapse_from == 1.6 for zone in found)
    assert all(1.0 <= zone.initial <= 1.4 for zone in found)


@pytest.mark.parametrize("accuracy", [np.zeros((3, 60)), np.eye(3, 60) / 8])
def test_an_accuracy_that_may_be_zero_is_an_error_with_a_remedy(accuracy):
    with pytest.raises(NoAccuracy, match=r"probe\.prompts"):
        find_zones(np.array([0.6, 0.8, 1.0]), accuracy, np.ones(3), tolerance=TOLERANCE, seed=0)


def test_collapse_is_counted_from_the_best_temperature():
    accuracy = np.array([0.2, 0.6, 0.5, 0.41])[:, None]
    assert first_collapsed(accuracy, seed=0) == 3
    assert first_collapsed(accuracy[:3], seed=0) is None
