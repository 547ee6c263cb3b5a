"""MLflow, on the server that MLFLOW_TRACKING_URI names or in a file of the run's folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.config.job import JobConfig
from polaris.config.load import dump_config
from polaris.errors import Refused
from polaris.observe.hook import DONE, STOPPED
from polaris.observe.sections.configuration import flat
from polaris.observe.trackers.tracker import Tracker, first_line, import_package, logger, require_writable

if TYPE_CHECKING:
    from mlflow import MlflowClient

_WITHOUT = "remove observe.mlflow_experiment"
_MOST_PARAMETERS, _LONGEST_PARAMETER = 100, 500
"""What every MLflow store takes in one call, and in one value."""


class MLflow(Tracker):
    """One MLflow run per run folder; its id is kept in `mlflow_id`."""

    def check(self, config: JobConfig) -> None:
        import_package("mlflow", "mlflow_experiment", "MLflow", "mlflow", _WITHOUT)
        if not os.environ.get("MLFLOW_TRACKING_URI"):  # mlflow-skinny has no store of its own
            import_package("sqlalchemy", "mlflow_experiment", "MLflow's file store", "mlflow", _WITHOUT)
        require_writable(config.folder / "mlflow.db", _WITHOUT)

    def on_start(self, config: JobConfig, folder: Path, next_step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self._metric, self._error = Metric, MlflowException
        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        kept = folder / "mlflow_id"
        try:
            self._client = MlflowClient(store)
            if kept.exists():
                self._id = kept.read_text().strip()
                self._client.update_run(self._id, "RUNNING")
                return
            self._id = self._client.create_run(
                _experiment(self._client, str(config.observe.mlflow_experiment)), run_name=config.name
            ).info.run_id
            settings = [Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in flat(json.loads(dump_config(config)))]
            for start in range(0, len(settings), _MOST_PARAMETERS):
                self._client.log_batch(self._id, params=settings[start : start + _MOST_PARAMETERS])
        except MlflowException as error:
            raise Refused(f"MLflow did not start at {store} ({first_line(error)}); start its server, or {_WITHOUT}") from error
        kept.write_text(self._id)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        try:
            self._client.log_batch(self._id, [self._metric(key, float(value), now, step) for key, value in numbers.items()])
        except self._error as error:
            logger.warning("MLflow missed step %s: %s", step, first_line(error))

    def on_stop(self, why: str) -> None:
        try:
            self._client.set_terminated(self._id, {DONE: "FINISHED", STOPPED: "KILLED"}.get(why, "FAILED"))
        except self._error as error:
            logger.warning("MLflow does not know that the run has ended: %s", first_line(error))


def _experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment, which is made where there is none of that name."""
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found is not None else client.create_experiment(name)
