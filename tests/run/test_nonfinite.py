"""Updates whose loss or gradient is not finite are skipped, counted over steps, and end the run when there are too many in a row."""

import math

import pytest
from train_ranks import check_run

from polaris.checkpoint.store import TrainState
from polaris.config.model import ModelConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.embedded import resolve
from polaris.errors import RunFailed
from polaris.learn import learner
from polaris.learn.update import UpdateResult
from polaris.run.setup import open_training
from polaris.run.step import NonFiniteRun, _streak, train_step
from polaris.stop import StopRequest


def result(applied):
    return UpdateResult(loss=0.5 if applied else math.nan, grad_norm=1.0 if applied else math.inf, applied=applied, packs=1)


def config(most=3, dtype="float32"):
    return RunConfig(trainer=TrainerConfig(max_nonfinite_steps=most), model=ModelConfig(dtype=dtype))


@pytest.mark.parametrize(
    ("before", "applied", "after"),
    [(0, [], 0), (2, [], 2), (2, [True], 0), (1, [False], 2), (0, [False, True, False], 1), (2, [True, False], 1)],
)
def test_updates_in_a_row_are_counted_over_steps(before, applied, after):
    assert _streak(config(), before, [result(each) for each in applied]) == after


@pytest.mark.parametrize(
    ("before", "applied", "count"), [(2, [False], 3), (1, [False, False, True], 3), (0, [True, False, False, False], 3)]
)
def test_the_third_in_a_row_ends_the_run_and_says_what_was_not_finite(before, applied, count):
    with pytest.raises(NonFiniteRun, match=rf"^{count} updates in a row had a non-finite loss \(nan\) or gradient norm \(inf\); none was"):
        _streak(config(), before, [result(each) for each in applied])
    assert issubclass(NonFiniteRun, RunFailed), "status 1 and one line"


def test_float16_has_its_own_hint():
    with pytest.raises(NonFiniteRun, match="float16 also overflows"):
        _streak(config(1, "float16"), 0, [result(False)])
    with pytest.raises(NonFiniteRun) as plain:
        _streak(config(1), 0, [result(False)])
    assert "float16" not in str(plain.value)


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_steps_that_skip_keep_the_version_and_the_last_of_them_raises(world, tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "update", lambda *arguments: result(False))
    state = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)
    with open_training(check_run(tmp_path, resolve("embedded:train")), world, StopRequest()) as opened:
        for streak in (1, 2):
            state, record, _ = train_step(opened, state)
            assert (state.nonfinite_streak, state.version) == (streak, 0)
            assert record["optimizer/skipped"] == 1
            assert record["update/skipped"] == 0
        with pytest.raises(NonFiniteRun, match="3 updates in a row"):
            train_step(opened, state)
