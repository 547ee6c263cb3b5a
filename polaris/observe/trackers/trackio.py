"""Trackio: curves in a database on this machine, by Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from polaris.config.job import JobConfig
from polaris.observe.trackers.tracker import Tracker, import_package, kept_id


class Trackio(Tracker):
    """One Trackio run per run folder, named after the run and the id in `trackio_id`."""

    def check(self, config: JobConfig) -> None:
        import_package("trackio", "trackio_project", "Trackio", "trackio", "remove observe.trackio_project")

    def on_start(self, config: JobConfig, folder: Path, next_step: int) -> None:
        import trackio

        name = f"{config.name}-{kept_id(folder / 'trackio_id')[:8]}"  # its runs are known by their names alone
        project = str(config.observe.trackio_project)
        self._run = trackio.init(project=project, name=name, config=asdict(config), resume="allow", embed=False, auto_log_gpu=False)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def on_stop(self, why: str) -> None:
        self._run.finish()
