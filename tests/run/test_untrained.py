"""A run in which no step made an update says why, and is not done."""

import dataclasses
import json
from pathlib import Path

import programs
import pytest

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.run.untrained import why_untrained

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
RECORD = {
    "groups/drawn": 8, "groups/informative": 0, "groups/all_right": 0, "groups/all_wrong": 8, "optimizer/skipped": 0,
    "reward/no_answer": 0.0, "response/clip_ratio": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer/skipped": 1, "groups/informative": 4}, "every loss or gradient (2) was not finite. Lower optimizer.lr"),
        ({"groups/informative": 1}, 'algorithm.scarce = "skip" passed over every step, with 2 of 16 groups informative'),
        ({"groups/all_right": 7, "groups/all_wrong": 1}, "of 16 groups 14 were all right, 2 all wrong, and none had both. Train on harder"),
        ({"response/clip_ratio": 0.9}, "90% of the responses were cut off: raise rollout.max_response_tokens"),
        ({"reward/no_answer": 0.75}, "75% of the responses have no answer that can be graded"),
        ({}, "of 16 groups 0 were all right, 16 all wrong, and none had both. Train on easier prompts"),
    ],
)
def test_the_reason_and_the_remedy(changes, words):
    config = dataclasses.replace(RunConfig(), algorithm=AlgorithmConfig(scarce="skip", min_informative=0.5))
    text = why_untrained([{"step": 0, "eval/accuracy": 0.5}, RECORD | changes, RECORD | changes], config)
    assert words in text
    assert "the weights are still those that the run began with" in text


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_real_run_without_an_update_fails_and_is_not_exported(tmp_path):
    rows = [{"problem": f"Compute {i}+1.", "answer": "987654"} for i in range(4)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    changes = {
        "root": tmp_path,
        "name": "run",
        "data.path": tmp_path / "set.jsonl",
        "rollout.engine": "transformers",
        "rollout.samples_per_prompt": 2,
        "rollout.max_response_tokens": 32,
        "trainer.steps": 1,
        "trainer.cpu_threads": 1,
        "trainer.prompts_per_step": 2,
        "eval.path": "none",
    }
    result = programs.run("-m", "polaris.train", CONFIG, *(f"--{name}={value}" for name, value in changes.items()))
    assert result.returncode == 1, result.stderr[-2000:]
    assert result.stderr.splitlines()[-1].startswith("polaris: no update was made in 1 step, and")
    assert "done" not in result.stdout
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "export").exists()
