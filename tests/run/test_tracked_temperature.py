"""A stage whose temperature tracks diversity, on the embedded model: its start, its moves, and its resumption within a window."""

import json

import numpy as np
import pytest
from groups import group

from polaris import train
from polaris.algorithm import track as rule
from polaris.checkpoint import run_folder
from polaris.observe.metrics import deterministic, read_records
from polaris.recipe.job import train_and_evaluate
from polaris.results import Result
from polaris.run.tracker import TemperatureTracker
from polaris.stop import StopRequest

CONFIG = """
deterministic = true
model = { path = "embedded:model", dtype = "float32" }
memory = { activations = "keep" }
data = { path = "embedded:test", max_prompt_tokens = 64 }
rollout = { engine = "transformers", max_response_tokens = 96, samples_per_prompt = 4 }
reward = { workers = 1 }
optimizer = { lr = 1e-3 }
trainer = { prompts_per_step = 4, cpu_threads = 1 }
checkpoint = { every = 100 }
observe = { tensorboard = false }

[[stage]]
steps = 1
temperature = 0.7

[[stage]]
steps = 12
temperature = "track"

[[stage]]
steps = 1
temperature = "track"
"""


class StopsAfter(StopRequest):
    """A stop that is requested once a step is recorded."""

    def __init__(self, path, step):
        super().__init__()
        self.path, self.step = path, step

    def requested(self):
        return self.path.is_file() and any(record["step"] >= self.step for record in read_records(self.path))


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """Trains a run by its name, stopped after a step. Every difference moves the temperature, for noise does too."""
    monkeypatch.setattr(rule, "CLEARLY", 0.0)
    (tmp_path / "track.toml").write_text(CONFIG)

    def run(name, stop_after=None):
        run_folder._HELD.clear()  # as a new process would begin
        prepared = train.prepare([str(tmp_path / "track.toml"), f"--root={tmp_path}", f"--name={name}"])
        folder = prepared[1].path
        train_and_evaluate(*prepared, world, StopsAfter(folder / "metrics.jsonl", stop_after) if stop_after else StopRequest())
        return folder

    return run


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_tracked_run_that_is_resumed_equals_one_that_is_not(run):
    straight = run("straight")
    records = [deterministic(record) for record in read_records(straight / "metrics.jsonl")]
    temperatures = [record["rollout/temperature"] for record in records]
    assert temperatures[:9] == [0.7] * 9, "the first window is held, and the second is waited for"
    assert len(set(temperatures)) > 1, "nothing has moved"
    assert all(0.5 <= record["rollout/diversity"] <= 1 for record in records)
    assert [("rollout/diversity_held" in record) for record in records] == [False] * 4 + [True] * 9 + [False]
    ended = Result(straight / "stages" / "stage-2.json").read()["temperature"]
    assert ended == temperatures[-1], "the third stage goes on from there"
    assert json.loads((straight / "checkpoints" / "step-000013" / "temperature.json").read_text())["temperature"] == ended
    run("resumed", 11)  # within the window after the first move
    assert [deterministic(record) for record in read_records(run("resumed") / "metrics.jsonl")] == records


def test_lost_verdicts_are_no_accuracy_and_checkpoints_of_older_versions_have_no_track(tmp_path):
    tracker = TemperatureTracker()
    tracker.track = rule.begin(0.6, (0.2, 1.0))
    tracker.add([group("a", "++-x"), group("b", "xx0-")], np.array([0.7, 0.9]))
    seen = tracker.track.window[0]
    assert (seen.accuracy, seen.diversity) == (pytest.approx(1 / 3), pytest.approx(0.8))
    tracker.save(tmp_path)
    again = TemperatureTracker()
    again.load(tmp_path)
    assert again.track == tracker.track
    (tmp_path / "temperature.json").unlink()
    again.load(tmp_path)
    assert again.track is None
