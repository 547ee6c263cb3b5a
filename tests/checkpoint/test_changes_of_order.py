"""What decides which groups are complete first is no free change of a run whose steps take the first ones."""

from dataclasses import replace

import pytest

from polaris.checkpoint.changes import RunProgress, find_changes
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig

BEFORE = RunConfig(trainer=TrainerConfig(steps=6))


def altering(oversample, step, steps=6, **rollout):
    configs = [replace(BEFORE, rollout=RolloutConfig(oversample=oversample, **fields)) for fields in ({}, rollout)]
    after = replace(configs[1], trainer=TrainerConfig(steps=steps))
    return find_changes(configs[0], after, RunProgress(step=step, closed=0), {}, {}).altering


@pytest.mark.parametrize("changed", [{"max_concurrent": 8}, {"kv_cache_mib": 8}, {"gpu_memory_fraction": 0.5}, {"tensor_parallel": 2}])
def test_room_of_the_engines(changed):
    assert altering(1, 3, **changed) == ()
    (found,) = altering(1.25, 3, **changed)
    assert found.startswith(f"rollout.{next(iter(changed))}: ")


def test_a_run_that_goes_on_behind_its_last_step_which_carried_nothing_over():
    assert altering(1.25, 6, steps=9) == ("step 6 is no longer the last: it carried no prompt over",)
    assert altering(1.25, 5, steps=9) == altering(1, 6, steps=9) == altering(1.25, 6, steps=6) == ()
