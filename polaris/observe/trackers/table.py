"""Which trackers there are, and which of them a run has."""

from __future__ import annotations

from polaris.config.job import JobConfig
from polaris.observe.trackers.mlflow import MLflow
from polaris.observe.trackers.tensorboard import TensorBoard
from polaris.observe.trackers.tracker import Tracker
from polaris.observe.trackers.trackio import Trackio
from polaris.observe.trackers.wandb import WeightsAndBiases


def check_trackers(config: JobConfig) -> None:
    """Raise `Refused` before anything is loaded or made if a wanted tracker could not start: for rank 0, which logs."""
    for tracker in make_trackers(config):
        tracker.check(config)


def make_trackers(config: JobConfig) -> list[Tracker]:
    """The trackers that the configuration names; none has started."""
    observe = config.observe
    wanted: dict[type[Tracker], bool] = {
        TensorBoard: observe.tensorboard,
        WeightsAndBiases: observe.wandb_project is not None,
        MLflow: observe.mlflow_experiment is not None,
        Trackio: observe.trackio_project is not None,
    }
    return [tracker() for tracker, asked in wanted.items() if asked]
