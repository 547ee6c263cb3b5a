"""Prompts near a target: how often, in which order, from what is known; and what is kept for a resumed run."""

from dataclasses import replace

import numpy as np
import pytest
from groups import group, prompt

from polaris.config.recipe import CurriculumConfig
from polaris.data.plateau import Plateau
from polaris.data.prompt_statistics import PromptStatistics
from polaris.data.sampler import open_statistics
from polaris.data.target_sampler import TargetSampler, target_at, weights
from polaris.errors import Refused

IDS = [f"p{index}" for index in range(60)]


def statistics_of(rates, graded=8, half_life=10):
    found = PromptStatistics(half_life)
    found.begin({name: (round(rate * graded), graded) for name, rate in rates.items()})
    return found


def sampler_of(statistics, batch=6, seed=3, target=(0.5, 0.5), steps=100, ids=IDS, **config):
    return TargetSampler(ids, batch, seed, statistics, CurriculumConfig(target=target, **config), steps)


@pytest.mark.parametrize("graded", [0, 2, 8, 40])
@pytest.mark.parametrize("target", [0.2, 0.5, 0.8])
def test_the_weight_is_the_mean_of_the_gaussian_over_what_the_rate_may_be(graded, target):
    for passed in {0, graded // 2, graded}:
        rates, found = weights(np.array([passed]), np.array([graded]), target, 0.15)
        failed, grid = graded - passed, (np.arange(20_000) + 0.5) / 20_000
        density = grid**passed * (1 - grid) ** failed
        density /= density.sum()
        assert rates[0] == pytest.approx(density @ grid)
        assert found[0] == pytest.approx(density @ np.exp(-((grid - target) ** 2) / (2 * 0.15**2)), abs=5e-3)


def test_prompts_are_drawn_as_often_as_their_weights_say():
    statistics = statistics_of({name: index / 59 for index, name in enumerate(IDS)}, graded=59, half_life=10**9)
    sampler, counts = sampler_of(statistics, batch=1), np.zeros(len(IDS))
    for step in range(1, 6001):
        counts[sampler.next(step)] += 1
    rates, weight = weights(np.arange(60), np.full(60, 59), 0.5, 0.15)
    assert np.abs(counts / 6000 - weight / weight.sum()).max() < 0.006
    assert abs(rates @ counts / 6000 - 0.5) < 0.01


def test_a_step_is_a_function_of_seed_step_and_statistics_and_holds_no_prompt_twice():
    statistics = statistics_of(dict.fromkeys(IDS, 0.5))
    first, second = sampler_of(statistics), sampler_of(statistics)
    drawn = {step: first.next(step) + first.next(step) for step in (1, 2, 7)}
    assert second.next(7) + second.next(7) == drawn[7], "earlier draws are not needed"
    assert all(len(set(found)) == 12 for found in drawn.values())
    assert len({tuple(found) for found in drawn.values()}) == 3
    assert sampler_of(statistics, seed=4).next(7) != drawn[7][:6]
    for left in range(7, -1, -1):
        first.next(7)
        assert first.batches_left == left
    assert len(set(first._taken)) == 60


def test_the_draw_follows_a_falling_target_and_what_groups_say():
    rates = {name: index / 59 for index, name in enumerate(IDS)}
    sampler = sampler_of(statistics_of(rates, graded=59, half_life=10**9), target=(0.8, 0.2), steps=11)
    means = []
    for step in range(1, 12):
        sampler.next(step)
        means.append(sampler.facts()["curriculum/expected"])
        assert sampler.facts()["curriculum/target"] == pytest.approx(0.8 - 0.06 * (step - 1))
    assert np.mean(means[:3]) > 0.65 > 0.35 > np.mean(means[-3:])
    assert target_at(20, 11, (0.8, 0.2)) == pytest.approx(0.2)


def test_a_prompt_that_was_never_solved_comes_back_when_its_verdicts_are_old():
    statistics = statistics_of({"old": 0.0, "new": 0.0}, graded=8)
    for _ in range(3):
        statistics.add_groups([group("new", "----")], 50)
    passed, graded = statistics.recent("old", 50)
    assert (passed, graded) == (0, 8 * 2**-5)
    _, weight = weights(np.zeros(3), np.array([graded, statistics.recent("new", 50)[1], 0]), 0.5, 0.15)
    assert weight[1] < 0.1 < 0.3 < min(weight[0], weight[2])


def test_forgetting_leaves_one_verdict_of_each_prompt():
    statistics = statistics_of({"a": 0.75, "b": 0.0})
    statistics.forget(0)
    assert [statistics.recent(name, 0) for name in "ab"] == [(0.75, 1.0), (0.0, 1.0)]
    assert statistics.recent("c", 0) == (0.0, 0.0)


def test_what_is_saved_is_bit_for_bit_what_is_drawn_from(tmp_path):
    straight, resumed = statistics_of(dict.fromkeys(IDS, 0.5), half_life=7), PromptStatistics(7)
    sampler, other = sampler_of(straight), None
    for step in range(1, 30):
        chosen = sampler.next(step)
        if other:
            assert other.next(step) == chosen
            resumed.add_groups([group(IDS[index], "+-+-"[: 2 + index % 3]) for index in chosen], step)
        straight.add_groups([group(IDS[index], "+-+-"[: 2 + index % 3]) for index in chosen], step)
        if step == 12:
            straight.save(tmp_path)
            resumed.load(tmp_path)
            other = sampler_of(resumed)
            other.restore(sampler.state())
    assert resumed.seen == straight.seen
    assert other.state() == sampler.state() == {"epoch": 2, "cursor": 54}


def test_a_step_that_was_not_finished_is_drawn_again_after_a_restore():
    sampler = sampler_of(statistics_of(dict.fromkeys(IDS, 0.5)))
    sampler.next(4)
    state, chosen = sampler.state(), sampler.next(5)
    sampler.restore(state)
    assert sampler.next(5) == chosen


def test_a_plateau_is_two_windows_without_a_rise(tmp_path):
    plateau = Plateau(3)
    shares = [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.3, 0.4, 0.9, 0.9, 0.9]
    reached = []
    for share in shares:
        plateau.save(tmp_path)
        plateau = Plateau(3)
        plateau.load(tmp_path)
        reached.append(plateau.reached(share))
    assert [index for index, found in enumerate(reached) if found] == [7]
    assert not any(Plateau(0).reached(0.0) for _ in range(10))
    plateau.load(tmp_path / "none")


def test_another_models_pass_rates_are_worth_two_verdicts_until_the_own_ones_come():
    config, rows = CurriculumConfig(target=(0.5, 0.5), prior="theirs", half_life=10), {"a": "6/8", "b": 0.25, "c": 1}
    prompts = [replace(prompt(name), row={"theirs": value}) for name, value in rows.items()]
    statistics = open_statistics(prompts, config)
    assert [statistics.recent(name, 0) for name in "abc"] == [(1.5, 2.0), (0.5, 2.0), (2.0, 2.0)]
    statistics.begin({"a": (0, 8)})
    assert statistics.recent("a", 0) == (1.5, 10.0)
    assert statistics.recent("c", 10) == (1.0, 1.0)
    for wrong in ("9/8", "x", None, True, 1.5):
        with pytest.raises(ValueError, match=r"script:0 has .* in curriculum\.prior = 'theirs', not a pass rate"):
            open_statistics([replace(prompts[0], row={"theirs": wrong})], config)


def test_a_step_draws_none_of_the_prompts_that_it_goes_on_with():
    statistics = statistics_of(dict.fromkeys(IDS, 0.5))
    for step in range(1, 9):
        busy = set(range(step, 60, 2))
        found = sampler_of(statistics).next(step, 20, busy)
        assert len(found) == len(set(found)) == 20
        assert not busy & set(found)


def test_a_set_must_fill_a_step_that_begins_more_prompts_than_it_takes():
    TargetSampler(IDS, 6, 3, PromptStatistics(10), CurriculumConfig(target=(0.5, 0.5)), 100, most=60)
    with pytest.raises(Refused, match=r"a step begins 61 prompts \(rollout\.oversample\), but there are 60; lower it, or add prompts"):
        TargetSampler(IDS, 6, 3, PromptStatistics(10), CurriculumConfig(target=(0.5, 0.5)), 100, most=61)
