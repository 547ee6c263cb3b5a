"""Arithmetic of one GPU, in bytes per parameter."""

import re

import pytest

from polaris.trainer.memory import check_memory

H100, H200 = 79 << 30, 139 << 30


@pytest.mark.parametrize(("billions", "ranks", "total"), [(4.0, 8, H100), (4.0, 4, H100), (7.6, 8, H200), (32.8, 64, H100), (1.7, 2, H200)])
def test_runs_that_fit(billions, ranks, total):
    check_memory(int(billions * 1e9), ranks, 0.8, total)


@pytest.mark.parametrize(("billions", "ranks", "total"), [(1.7, 1, H100), (4.0, 2, H100), (4.0, 1, H200), (7.6, 4, H100)])
def test_an_engine_that_takes_too_much_is_told_how_much_it_may(billions, ranks, total):
    parameters = int(billions * 1e9)
    with pytest.raises(ValueError, match=r"set it to 0\.\d+ or less") as refused:
        check_memory(parameters, ranks, 0.8, total)
    fraction = float(re.search(r"set it to ([\d.]+)", str(refused.value))[1])
    check_memory(parameters, ranks, fraction, total)
    with pytest.raises(ValueError, match="or start more ranks"):
        check_memory(parameters, ranks, fraction + 0.05, total)


@pytest.mark.parametrize(("billions", "ranks"), [(32.8, 4), (7.6, 1), (70.0, 8)])
def test_training_that_fits_nowhere_is_told_how_many_ranks_it_needs(billions, ranks):
    parameters = int(billions * 1e9)
    with pytest.raises(ValueError, match=r"start \d+ ranks or more") as refused:
        check_memory(parameters, ranks, 0.3, H100)
    needed = int(re.search(r"start (\d+) ranks", str(refused.value))[1])
    check_memory(parameters, needed + 1, 0.01, H100)
    with pytest.raises(ValueError, match="ranks or more"):
        check_memory(parameters, needed - 1, 0.01, H100)
