"""The probe's choice over simulated probes: prompts of all difficulties, whose pass rates follow a known curve over temperature."""

import numpy as np
import pytest

from polaris.algorithm.zones import SURE, find_zones
from polaris.config.recipe import ProbeConfig

GRID, TOLERANCE = np.array(ProbeConfig().temperatures), ProbeConfig().tolerance
PROBES = 100
FLAT = (1.0,) * 9
CURVES = {
    "flat, then falling": (1, 1, 1, 1, 1, 0.98, 0.9, 0.5, 0.1),
    "flat, then falling slowly": (1, 1, 1, 1, 0.95, 0.9, 0.8, 0.6, 0.3),
    "falling by a tenth": tuple(1 - 0.1 * k for k in range(9)),
    "falling by a twentieth": tuple(1 - 0.05 * k for k in range(9)),
    "a peak in the middle": (0.7, 0.8, 0.9, 1, 1, 0.9, 0.8, 0.5, 0.2),
    "a sharp peak": (0.6, 0.7, 0.8, 0.9, 1, 0.9, 0.8, 0.5, 0.2),
    "three": (1, 0.9, 0.8),
    "low": (1, 0.55, 0.3),
    "flat": FLAT,
}
SIMULATIONS = [
    *((name, 0.5, 60, 8, 1.2) for name in CURVES),
    ("three", 0.5, 60, 8, 4.0),
    ("three", 0.25, 60, 8, 1.2),
    ("three", 0.2, 60, 8, 1000.0),
    ("three", 0.5, 30, 4, 1.2),
    ("low", 0.2, 16, 4, 10.0),
    ("low", 0.2, 16, 4, 1000.0),
    ("falling by a tenth", 0.3, 30, 8, 1.2),
    ("falling by a tenth", 0.2, 60, 8, 1000.0),
    ("flat, then falling", 0.6, 30, 16, 1.2),
]


def probes(curve, accuracy, prompts, samples, alike, times=PROBES):
    """`alike` is the sum of the Beta distribution's parameters: 1.2 is a set with most prompts always or never solved, 1000 one rate."""
    for seed in range(times):
        generator = np.random.default_rng(seed)
        rates = generator.beta(accuracy * alike, (1 - accuracy) * alike, prompts) * np.array(curve)[:, None]
        yield generator.binomial(samples, rates) / samples


def chosen(curve, *probe):
    """The place on the grid of the temperature that each probe chooses; hotter is more diverse."""
    grid = GRID[: len(curve)]
    return [int(np.searchsorted(grid, find_zones(grid, row, grid, tolerance=TOLERANCE).initial)) for row in probes(curve, *probe)]


@pytest.mark.parametrize(("name", "accuracy", "prompts", "samples", "alike"), SIMULATIONS)
def test_the_chosen_accuracy_is_within_three_percent_of_the_best_in_95_of_100_probes(name, accuracy, prompts, samples, alike):
    curve = CURVES[name]
    found = chosen(curve, accuracy, prompts, samples, alike)
    assert sum(curve[index] >= 0.97 * max(curve) for index in found) >= 95


@pytest.mark.parametrize(("prompts", "hottest", "mean"), [(60, 50, 1.4), (200, 70, 1.6)])
def test_where_no_accuracy_is_lost_most_probes_go_to_the_hottest(prompts, hottest, mean):
    found = chosen(FLAT, 0.5, prompts, 8, 1.2)
    assert found.count(8) >= hottest
    assert GRID[found].mean() > mean


def test_no_temperature_is_chosen_that_is_clearly_below_the_best():
    for name in ("three", "falling by a tenth", "a sharp peak"):
        for row in probes(CURVES[name], 0.5, 60, 8, 1.2, times=40):
            grid = GRID[: len(row)]
            apart = row[row.mean(axis=1).argmax()] - row[np.searchsorted(grid, find_zones(grid, row, grid, tolerance=TOLERANCE).initial)]
            assert apart.mean() <= 2 * apart.std() / len(apart) ** 0.5


def test_a_temperature_said_to_be_sure_keeps_its_accuracy_as_often_as_said():
    """Over curves of every kind, of the temperatures that a probe is sure of at most 5 % lose more than the tolerance."""
    right = wrong = 0
    for curve in (np.array(curve) for name, curve in CURVES.items() if name != "flat, then falling slowly"):
        for row in probes(curve, 0.5, 60, 8, 1.2, times=40):
            kept = np.array(find_zones(GRID[: len(curve)], row, curve, tolerance=TOLERANCE).kept)
            sure = curve[kept >= SURE] >= (1 - TOLERANCE) * curve.max()
            right, wrong = right + int(sure.sum()), wrong + int((~sure).sum())
    assert wrong < 0.05 * (right + wrong)
