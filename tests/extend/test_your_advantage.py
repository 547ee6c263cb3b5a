"""The advantage of docs/extend.md in a real run; test_loss.py runs the same recipe through vLLM."""

import json

import numpy as np
import pytest
from recipes import train, write_recipe

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_what_is_below_the_mean_weighs_half(tmp_path):
    folder = write_recipe("A loss, and an advantage", tmp_path)
    run = train(
        folder, "--rollout.engine=transformers", "--trainer.steps=1", "--trainer.prompts_per_step=8", "--observe.samples_per_step=100"
    )
    assert run.returncode == 0, run.stdout
    (file,) = tmp_path.glob("runs/*/rollouts/step-000001.jsonl")
    groups = {}
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        groups.setdefault(row["prompt"], []).append((row["reward"], row["advantage"]))
    varied = 0
    for group in groups.values():
        rewards, advantages = np.array(group).T
        centred = rewards - rewards.mean()
        assert advantages == pytest.approx(np.where(centred < 0, centred / 2, centred))
        varied += advantages.any()
    assert len(groups) == 8
    assert varied > 1
