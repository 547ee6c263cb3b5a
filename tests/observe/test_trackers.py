import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from polaris.config.schema import RunConfig
from polaris.config.training import ObserveConfig
from polaris.errors import Refused
from polaris.observe.trackers.table import check_trackers, make_trackers


def run(tmp_path, **observe):
    return RunConfig(root=str(tmp_path / "runs"), observe=ObserveConfig(**observe))


@pytest.mark.parametrize(
    ("package", "observe"),
    [
        ("torch.utils.tensorboard", {}),
        ("wandb", {"tensorboard": False, "wandb_project": "x"}),
        ("mlflow", {"tensorboard": False, "mlflow_experiment": "x"}),
        ("trackio", {"tensorboard": False, "trackio_project": "x"}),
    ],
    ids=lambda v: str(v),
)
def test_a_missing_package_is_refused_with_its_remedy_and_nothing_is_made(tmp_path, monkeypatch, package, observe):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refused, match=f"`pip install {package.split('.')[-1]}`, or "):
        check_trackers(run(tmp_path, **observe))
    check_trackers(run(tmp_path, tensorboard=False))
    assert not list(tmp_path.iterdir())


def test_weights_and_biases_without_a_login_is_refused_and_offline_is_not(tmp_path, monkeypatch):
    class Error(Exception):
        pass

    def login():
        if os.environ.get("WANDB_MODE") != "offline":
            raise Error("No API key configured. Use `wandb login` to log in.\nmore")
        return False

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Error=Error, login=login))
    config = run(tmp_path, tensorboard=False, wandb_project="x")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(Refused, match=r"^Weights & Biases did not start \(No API key .* to log in\.\); run `wandb login`, set WANDB_MODE"):
        check_trackers(config)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("blocked", "remedy"),
    [
        ("runs", "choose another --root or --name"),
        ("runs/polaris", "choose another --root or --name"),
        ("runs/polaris/tensorboard", "set observe.tensorboard = false"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, blocked, remedy):
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("a file")
    with pytest.raises(Refused, match=f"{blocked} is no folder; mend that, or {re.escape(remedy)}"):
        check_trackers(run(tmp_path))


def interrupted(config, folder):
    """Six records of a run that is killed, and of the same run resumed before its fourth."""
    for next_step, steps, value, why in ((0, range(6), 1.0, "killed"), (3, range(3, 5), 2.0, "done")):
        (tracker,) = make_trackers(config)
        tracker.on_start(config, folder, next_step)
        for step in steps:
            tracker.on_step({"step": step, "reward/mean": value, "text": "x", "optimizer/grad_norm": None}, [])
        tracker.on_evaluate({"step": step, "eval/accuracy": value})
        tracker.on_stop(why)


def test_a_resumed_run_hides_the_steps_it_repeats(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(RunConfig(), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]
    assert events.Tags()["scalars"] == ["reward/mean", "eval/accuracy"]


def test_mlflow_keeps_one_run_for_a_run_and_its_resumption(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = run(tmp_path, tensorboard=False, mlflow_experiment="polaris")
    interrupted(config, tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("polaris").experiment_id])
    assert (found.info.run_name, found.info.status) == ("polaris", "FINISHED")
    assert found.data.params["optimizer.lr"] == "1e-06"
    assert set(found.data.metrics) == {"reward/mean", "eval/accuracy"}
    history = [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, "reward/mean")]
    assert history == [*((step, 1.0) for step in range(6)), (3, 2.0), (4, 2.0)]


def test_trackio_goes_on_in_the_same_run(tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    interrupted(run(tmp_path, tensorboard=False, trackio_project="polaris"), tmp_path)
    (found,) = trackio.Api().runs("polaris")
    history = trackio.sqlite_storage.SQLiteStorage.get_logs("polaris", found.name)
    assert [row["step"] for row in history if "reward/mean" in row] == [0, 1, 2, 3, 4, 5, 3, 4]


def test_importing_the_room_does_not_import_torch():
    modules = ("console", "metrics", "report", "samples", "trackers.table")
    imports = "; ".join(f"import polaris.observe.{module}" for module in modules)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
