"""Paired differences against mpmath's incomplete beta function, and against what repetitions show."""

import mpmath
import numpy as np
import pytest

from polaris.algorithm.paired import mean_of_sets, paired_difference, t_cdf, t_quantile, t_tail

FREEDOMS = (1, 2, 3, 4, 5, 29, 30, 271, 674)


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.045, 12.0])
def test_students_distribution_is_that_of_mpmath(t, freedom):
    tail = mpmath.betainc(mpmath.mpf(freedom) / 2, 0.5, 0, freedom / (freedom + mpmath.mpf(t) ** 2), regularized=True)
    assert t_cdf(t, freedom) == pytest.approx(float(1 - tail / 2), abs=1e-12)
    assert t_cdf(-t, freedom) == pytest.approx(float(tail / 2), abs=1e-12)
    assert t_cdf(t_quantile(0.975, freedom), freedom) == pytest.approx(0.975, abs=1e-12)


@pytest.mark.parametrize("freedom", [*FREEDOMS, 149, 20_000])
@pytest.mark.parametrize("t", [0.0, 1.0, 2.5, 3.2, 6.0, 10.0, 30.0])
def test_the_tail_keeps_its_digits_however_small_it_is(t, freedom):
    with mpmath.workdps(40):
        tail = mpmath.betainc(mpmath.mpf(freedom) / 2, 0.5, 0, freedom / (freedom + mpmath.mpf(t) ** 2), regularized=True) / 2
        assert t_tail(t, freedom) == pytest.approx(float(tail), rel=1e-9, abs=0)


def test_a_difference_of_many_errors_has_a_p_above_zero():
    """The p of t = 10 with 149 degrees of freedom, by mpmath to 30 digits, where 1 less the distribution function is 0 or rounding."""
    second = np.tile([-1.0, 1.0], 75)
    second = second * np.sqrt(149 / 150) + 10 / np.sqrt(150)
    assert paired_difference(np.zeros(150), second).p == pytest.approx(2.47775056683192e-18, rel=1e-6)


def test_intervals_of_tables():
    found = paired_difference(np.zeros(5), np.array([0.1, 0.2, 0.3, 0.2, 0.2]))
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(2.7764451 * np.sqrt(0.005 / 5))  # t of 4 degrees of freedom
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert paired_difference(np.ones(5), np.ones(5)).high == pytest.approx(1 - 0.05**0.2)


@pytest.mark.parametrize(("problems", "samples", "shift"), [(30, 32, 0.1), (30, 1, 0.0), (83, 8, 0.05), (12, 8, 0.0)])
def test_95_of_100_intervals_hold_the_true_difference(problems, samples, shift):
    """Problems are drawn from a mirrored J of pass rates, samples from their problems; the truth is that of all problems."""
    random, held, repetitions = np.random.default_rng(0), 0, 1500
    truth = shift * 0.5 * 0.7  # B solves a Beta(1/2, 1/2) part of `shift` of what A misses
    for _ in range(repetitions):
        first = random.beta(0.3, 0.7, problems)
        second = first + (1 - first) * shift * random.beta(0.5, 0.5, problems)
        found = paired_difference(random.binomial(samples, first) / samples, random.binomial(samples, second) / samples)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / repetitions <= 0.975  # 0.95 with a standard error of 0.006


def test_pairing_finds_what_unpaired_means_do_not():
    random = np.random.default_rng(1)
    first = random.uniform(size=60)
    second = np.clip(first + random.normal(0.03, 0.03, 60), 0, 1)
    assert paired_difference(first, second).p < 0.001
    assert paired_difference(first, random.permutation(second)).p > 0.05


def test_the_least_difference_that_is_told_is_found_in_80_of_100_repetitions():
    random, found = np.random.default_rng(2), []
    told = paired_difference(np.zeros(30), random.normal(0, 0.2, 30)).error * (t_quantile(0.975, 29) + t_quantile(0.8, 29))
    assert told == pytest.approx(paired_difference(np.zeros(30), np.random.default_rng(2).normal(0, 0.2, 30)).tells)
    shift = 0.2 / np.sqrt(30) * (t_quantile(0.975, 29) + t_quantile(0.8, 29))
    for _ in range(1000):
        found.append(paired_difference(np.zeros(30), random.normal(shift, 0.2, 30)).p < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_the_mean_of_sets_counts_each_set_once_and_its_intervals_hold_the_truth():
    random, held = np.random.default_rng(3), 0
    for _ in range(1000):
        sets = [paired_difference(np.zeros(size), random.normal(0.05, spread, size)) for size, spread in ((30, 0.3), (600, 0.1))]
        found = mean_of_sets(sets)
        held += found.low <= 0.05 <= found.high
    assert found.mean == pytest.approx((sets[0].mean + sets[1].mean) / 2)
    assert 0.93 <= held / 1000 <= 0.975
    same = mean_of_sets([paired_difference(np.ones(30), np.ones(30))] * 2)
    assert (same.mean, same.p) == (0, 1)
    assert same.high == pytest.approx(0.095 / np.sqrt(2), rel=0.03), "the rule of three for each of two sets"


@pytest.mark.parametrize(("problems", "p"), [(2, 0.5), (5, 0.0625), (30, 2 * 0.5**30)])
def test_where_every_problem_differs_by_the_same_p_is_that_of_the_sign_test(problems, p):
    found = paired_difference(np.zeros(problems), np.ones(problems))
    assert (found.mean, found.p, found.alike) == (1, p, True)
    apart = paired_difference(np.zeros(30), np.append(np.ones(29), 0))
    assert found.p > apart.p or problems == 30
    assert mean_of_sets([found, found]).p < max(p, 0.07)


def test_a_set_in_which_nothing_differs_does_not_make_the_mean_surer():
    apart = paired_difference(np.zeros(30), np.random.default_rng(4).normal(0.3, 0.2, 30))
    tied = paired_difference(np.ones(5), np.ones(5))
    assert mean_of_sets([apart, tied]).error > apart.error / 2


def test_one_problem_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        paired_difference(np.ones(1), np.zeros(1))
