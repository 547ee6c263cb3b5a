"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from polaris.config.job import JobConfig
from polaris.errors import Refused
from polaris.observe.hook import DONE, STOPPED
from polaris.observe.trackers.tracker import Tracker, first_line, import_package, kept_id, logger, require_writable


class WeightsAndBiases(Tracker):
    """One wandb run per run folder; its id is kept in `wandb_id`."""

    def check(self, config: JobConfig) -> None:
        wandb = import_package("wandb", "wandb_project", "wandb", "wandb", "remove observe.wandb_project")
        try:
            wandb.login()  # asks on a terminal; does nothing offline
        except wandb.Error as error:
            raise _failed(error) from error
        require_writable(config.folder / "wandb", "leave observe.wandb_project out")

    def on_start(self, config: JobConfig, folder: Path, next_step: int) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=config.observe.wandb_project,
                name=config.name,
                id=kept_id(folder / "wandb_id"),
                resume="allow",
                dir=str(folder),
                config=asdict(config),
            )
        except wandb.Error as error:
            raise _failed(error) from error
        self._error = wandb.Error
        # wandb's own step never goes back, so repeated steps of a resumed run would be dropped.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        try:
            self._run.log({"step": step, **numbers})
        except self._error as error:
            logger.warning("Weights & Biases missed step %s: %s", step, error)

    def on_stop(self, why: str) -> None:
        self._run.finish(exit_code=int(why not in (DONE, STOPPED)))


def _failed(error: Exception) -> Refused:
    remedy = "run `wandb login`, set WANDB_MODE=offline, or remove observe.wandb_project"
    return Refused(f"Weights & Biases did not start ({first_line(error)}); {remedy}")
