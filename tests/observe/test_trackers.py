import importlib.util
import subprocess
import sys

import pytest

from polaris.config.schema import ObserveConfig, RunConfig
from polaris.observe.trackers import check_trackers, open_trackers


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        check_trackers(ObserveConfig())
    with pytest.raises(ValueError, match="pip install wandb"):
        check_trackers(ObserveConfig(tensorboard=False, wandb_project="x"))
    check_trackers(ObserveConfig(tensorboard=False))


def test_a_resumed_run_hides_the_steps_it_repeats(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for next_step, steps, value in ((0, range(6), 1.0), (3, range(3, 5), 2.0)):
        (tracker,) = open_trackers(RunConfig(), tmp_path, next_step)
        for step in steps:
            tracker.log({"step": step, "reward/mean": value, "text": "x", "optimizer/grad_norm": None})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]
    assert events.Tags()["scalars"] == ["reward/mean"]


def test_importing_the_room_does_not_import_torch():
    modules = "console, metrics, report, samples, trackers"
    code = f"import sys; from polaris.observe import {modules}; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
