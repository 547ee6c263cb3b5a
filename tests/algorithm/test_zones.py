"""Zones against the ones that POLARIS published, and under noise."""

import numpy as np
import pytest

from polaris.algorithm.zones import FIRST, NoAccuracy, find_zones, first_collapsed, next_draw
from polaris.config.recipe import ProbeConfig

GRID, TOLERANCE = np.array(ProbeConfig().temperatures), ProbeConfig().tolerance


def zones(temperatures, accuracy, diversity):
    """From means without noise: one prompt stands for the whole set."""
    return find_zones(np.array(temperatures), np.array(accuracy)[:, None], np.array(diversity), np.ones(len(accuracy)), tolerance=TOLERANCE)


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


def test_the_zones_of_a_collapse_are_found_under_noise():
    curve = [0.9, 0.97, 1, 1, 1, 0.98, 0.9, 0.5, 0.1]
    found = [find_zones(GRID, rollouts(curve, seed), GRID, np.full(9, 8), tolerance=TOLERANCE) for seed in range(40)]
    assert all(zone.collapse_from == 1.6 for zone in found)
    assert all(zone.robust_from <= zone.initial <= zone.robust_to <= 1.4 for zone in found)


def test_what_the_probe_cannot_tell_it_says_with_the_prompts_that_would():
    """16 prompts x 4 samples at 20, 11 and 6 %: the hottest once won, as if it were robust."""
    three = np.array([0.6, 1.0, 1.4])
    found = [find_zones(three, rollouts([0.4, 0.22, 0.12], seed, 16, 4), three, np.full(3, 4), tolerance=TOLERANCE) for seed in range(40)]
    assert sum(zone.initial == 0.6 for zone in found) >= 38
    assert sum(zone.of(1.4) != "robust generation" for zone in found) >= 34, "they were all robust before"
    unsure = [zone for zone in found if any(0.03 < kept < 0.97 for kept in zone.kept)]
    assert len(unsure) > 20
    assert all(zone.prompts_to_tell is None or zone.prompts_to_tell in (32, 64, 128, 256, 512, 1024) for zone in unsure)
    assert all(zone.prompts_to_tell == 0 for zone in found if zone not in unsure)


def test_as_many_prompts_as_it_says_settle_the_choice():
    few = rollouts([1, 0.9, 0.8], 3, 30, 8)
    needed = find_zones(GRID[:3], few, GRID[:3], np.full(3, 8), tolerance=TOLERANCE).prompts_to_tell
    assert needed is not None
    assert needed > 30
    many = find_zones(GRID[:3], np.tile(few, needed // 30), GRID[:3], np.full(3, 8), tolerance=TOLERANCE)
    assert many.prompts_to_tell == 0


@pytest.mark.parametrize("accuracy", [np.zeros((3, 60)), np.eye(3, 60) / 8])
def test_an_accuracy_that_may_be_zero_is_an_error_with_a_remedy(accuracy):
    with pytest.raises(NoAccuracy, match=r"probe\.prompts"):
        find_zones(np.array([0.6, 0.8, 1.0]), accuracy, np.ones(3), np.full(3, 8), tolerance=TOLERANCE)


def test_collapse_is_counted_from_the_best_temperature():
    accuracy = np.array([0.2, 0.6, 0.5, 0.41])[:, None]
    assert first_collapsed(accuracy, np.ones(4)) == 3
    assert first_collapsed(accuracy[:3], np.ones(3)) is None


def drawn(curve, most=8, prompts=60, seed=0):
    """Temperatures in the order in which they get responses, and how many each then has; avg@n of prompts of all difficulties."""
    generator = np.random.default_rng(seed)
    rates = generator.beta(0.6, 0.6, prompts) * np.array(curve)[:, None]
    solved = generator.random((*rates.shape, most)) < rates[:, :, None]
    samples, order = np.zeros(len(curve), int), []
    while True:
        accuracy = np.array([row[:, :n].sum(axis=1) / max(1, n) for row, n in zip(solved, samples, strict=True)])
        wanted = next_draw(accuracy, samples, most, tolerance=TOLERANCE)
        if wanted is None:
            return order, samples.tolist()
        order.append(wanted)
        samples[wanted[0]] = wanted[1]


def test_hotter_than_a_sure_collapse_nothing_is_drawn_and_lost_temperatures_get_no_more():
    order, samples = drawn((1, 1, 1, 1, 0.1, 0.05, 0, 0, 0))
    assert order[:5] == [(k, FIRST) for k in range(5)]
    assert samples[5:] == [0, 0, 0, 0], "the fifth has collapsed"
    assert samples[:5] == [8, 8, 8, 8, 2]
    assert [n for _, n in order[5:]] == [4, 4, 4, 4, 8, 8, 8, 8], "those with the fewest first"


def test_where_one_temperature_is_left_it_gets_no_more():
    assert drawn((1, 0.4, 0.3))[1] == [2, 2, 0]


def test_where_nothing_is_solved_everything_is_drawn():
    assert drawn((0, 0, 0), most=5)[1] == [5, 5, 5]
