"""The engine of docs/extend.md: it keeps the contract, and a run trains with it."""

import pytest
from recipes import polaris, records, train, write_recipe

from polaris.rollout.contract import PROMISES

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_the_engine_keeps_its_promises_and_trains(tmp_path):
    folder = write_recipe("An engine", tmp_path)
    tried = polaris("-m", "polaris.rollout.contract", "mine:OneByOne", folder=folder)
    assert tried.returncode == 0, tried.stdout
    assert f"{len(PROMISES)} of {len(PROMISES)} promises hold" in tried.stdout
    run = train(folder, "--reward.require_thinking=true")  # "auto" draws as much as the steps do
    assert run.returncode == 0, run.stdout
    assert "mine:OneByOne, 1 in all" in run.stdout
    found = records(folder)
    assert [record["step"] for record in found] == [1, 2, 3]
    assert found[-1]["policy/version"] > 0
    assert all(record["sync/logprob_gap"] < 1e-5 for record in found), "it serves the trainer's weights"
