"""The temperature that follows diversity, over simulated stages whose diversity falls as training sharpens the policy."""

from itertools import pairwise

import numpy as np
import pytest

from polaris.algorithm.track import WINDOW, begin, cooler, follow, hotter, hotter_ones, most_steps, next_place
from polaris.config.recipe import ProbeConfig
from polaris.run.tracker import TemperatureTracker

GRID = ProbeConfig().temperatures


def stage(seed=0, *, drift=0.0, slope=0.4, noise=0.1, prompts=32, steps=120, accuracy=lambda temperature: 0.5, start=0.6):
    """The temperature of each step, and the track at the end.

    Diversity is 0.8 - `drift` x step + `slope` x (temperature - `start`), of a prompt with `noise`. Pass rates of prompts vary from 0 to 1.
    """
    generator, track, temperatures = np.random.default_rng(seed), begin(start, GRID), []
    for step in range(steps):
        temperatures.append(track.temperature)
        diversity = 0.8 - drift * step + slope * (track.temperature - start) + generator.normal(0, noise, prompts)
        rates = generator.beta(0.6, 0.6, prompts) * 2 * accuracy(track.temperature)
        track = follow(track, diversity, generator.binomial(8, rates.clip(0, 1)) / 8)
    return temperatures, track


def moves(temperatures):
    return [after - before for before, after in pairwise(temperatures) if after != before]


@pytest.mark.parametrize("prompts", [8, 128])
def test_noise_of_prompts_seldom_moves_it(prompts):
    """120 steps, each of which may move it: one or two moves in at most a quarter of the stages."""
    moved = [len(moves(stage(seed, prompts=prompts)[0])) for seed in range(60)]
    assert np.mean(np.array(moved) > 0) < 0.25
    assert max(moved) <= 4


@pytest.mark.parametrize(("prompts", "behind"), [(8, 0.35), (32, 0.2), (128, 0.12)])
@pytest.mark.parametrize("drift", [0.001, 0.003, -0.001])
def test_it_follows_a_drift_and_more_prompts_keep_it_closer(prompts, behind, drift):
    """What restores the diversity at the end is 0.6 + 120 x drift / slope."""
    for seed in range(8):
        temperatures, _ = stage(seed, drift=drift, prompts=prompts)
        assert abs(temperatures[-1] - (0.6 + 120 * drift / 0.4)) < behind
        assert all(np.sign(move) == np.sign(drift) for move in moves(temperatures))


def test_where_a_grid_step_is_worth_more_than_what_is_missing_it_does_not_go_back_and_forth():
    """A grid step changes diversity by 0.1, the drift by 0.06 in all, and both are far beyond the noise."""
    for seed in range(20):
        assert len(moves(stage(seed, drift=0.0005, slope=2.0, noise=0.03, prompts=128)[0])) <= 4


@pytest.mark.parametrize("prompts", [8, 32, 128])
def test_where_accuracy_collapses_it_goes_back_and_stays_below(prompts):
    for seed in range(10):
        temperatures, track = stage(seed, drift=0.004, noise=0.05, prompts=prompts, accuracy=lambda t: 0.5 if t <= 0.9 else 0.2)
        above = [step for step, temperature in enumerate(temperatures) if temperature > 0.9]
        assert len(above) <= 2 * WINDOW
        assert above[-1] - above[0] < len(above), "only once"
        assert track.most <= 0.95


def test_a_loss_of_accuracy_that_temperature_has_not_caused_does_not_go_below_the_start():
    track = begin(0.6, GRID)
    generator = np.random.default_rng(0)
    for step in range(40):
        track = follow(track, generator.normal(0.8, 0.01, 32), generator.binomial(8, 0.8 if step < 10 else 0.2, 32) / 8)
    assert track.temperature == 0.6


def test_where_nothing_is_solved_it_does_not_become_hotter():
    track = begin(0.6, GRID)
    for step in range(20):
        track = follow(track, np.full(8, 0.8 - 0.01 * step), np.zeros(8))
    assert track.temperature == 0.6


def test_the_first_window_is_held_and_each_move_waits_for_a_window():
    track, temperatures = begin(0.6, GRID), []
    for step in range(5 * WINDOW):
        track = follow(track, np.full(8, 0.8 - 0.01 * step), np.full(8, 0.5))
        temperatures.append(track.temperature)
    assert track.held.diversity == pytest.approx(0.785)
    assert temperatures == [0.6] * 7 + [0.65] * 4 + [0.7] * 4 + [0.75] * 4 + [0.8]


@pytest.mark.parametrize(("bound", "fall", "end"), [("hot", 0.05, 1.8), ("cool", -0.05, 0.2)])
def test_it_stays_within_the_grid(bound, fall, end):
    track = begin(1.7 if bound == "hot" else 0.3, GRID)
    for step in range(60):
        track = follow(track, np.full(8, 0.5 - fall * step), np.full(8, 0.5))
    assert track.temperature == end


def test_a_checkpoint_keeps_a_track_without_loss(tmp_path):
    tracker, restored = TemperatureTracker(), TemperatureTracker()
    _, tracker.track = stage(drift=0.003, steps=39)
    assert tracker.track.effects[1] > 0
    assert tracker.track.held is not None
    assert len(tracker.track.window) > 1
    tracker.save(tmp_path)
    restored.load(tmp_path)
    assert restored.track == tracker.track


@pytest.mark.parametrize(("temperature", "below", "above"), [(1.4, 1.35, 1.45), (0.72, 0.7, 0.75), (0.15, 0.1, 0.2), (1.149, 1.1, 1.15)])
def test_the_grid(temperature, below, above):
    assert (cooler(temperature), hotter(temperature)) == (below, above)


def test_the_hotter_temperatures_of_the_grid():
    assert hotter_ones(0.4, 0.6) == [0.45, 0.5, 0.55, 0.6]
    assert hotter_ones(0.43, 0.54) == [0.45, 0.5]
    assert hotter_ones(0.6, 0.6) == []


@pytest.mark.parametrize("places", [1, 2, 3, 8, 19, 40])
def test_the_first_place_over_a_mark_is_found_in_few_steps(places):
    """Every mark; the last one is above all places. Place 0 is looked at first."""
    for mark in range(places + 1):
        seen = [0]
        while True:
            over = min((place for place in seen if place >= mark), default=None)
            under = max((place for place in seen if place < mark), default=0)
            wanted = next_place(under, over, places - 1)
            if wanted is None:
                break
            assert wanted not in seen
            seen.append(wanted)
        assert over == (mark if mark < places else None)
        assert len(seen) <= most_steps(places)
    assert most_steps(19) == 11
