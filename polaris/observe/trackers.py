"""Every record goes on to TensorBoard and Weights & Biases; `metrics.jsonl` stays the source of truth."""

from __future__ import annotations

import importlib
import logging
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from polaris.config.schema import RunConfig
from polaris.errors import Refused

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    def log(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def check_trackers(config: RunConfig) -> None:
    """Raise `Refused` before anything is loaded or made if a wanted tracker could not start: for rank 0, which logs."""
    folder = config.folder
    if config.observe.tensorboard:
        try:
            importlib.import_module("torch.utils.tensorboard")
        except (ImportError, TypeError) as error:  # its protobuf fails with a TypeError
            remedy = "`pip install tensorboard`, or set observe.tensorboard = false"
            raise Refused(f"observe.tensorboard: TensorBoard does not start ({_first_line(error)}); {remedy}") from error
        _require_writable(folder / "tensorboard", "set observe.tensorboard = false")
    if config.observe.wandb_project is not None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise Refused(
                f"observe.wandb_project: wandb does not start ({_first_line(error)}); `pip install wandb`, or remove observe.wandb_project"
            ) from error
        try:
            wandb.login()  # asks on a terminal; does nothing offline
        except wandb.Error as error:
            raise _wandb_failed(error) from error
        _require_writable(folder / "wandb", "leave observe.wandb_project out")


def _require_writable(folder: Path, without: str) -> None:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    fault = f"{place} is {'not writable' if place.is_dir() else 'no folder'}"
    # Without the tracker too, the run itself would have no place there.
    remedy = without if place == folder else "choose another --root or --name"
    if not writable:
        raise Refused(f"{folder} cannot be written: {fault}; mend that, or {remedy}")


def _wandb_failed(error: Exception) -> Refused:
    remedy = "run `wandb login`, set WANDB_MODE=offline, or remove observe.wandb_project"
    return Refused(f"Weights & Biases did not start ({_first_line(error)}); {remedy}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def open_trackers(config: RunConfig, run_folder: Path, next_step: int) -> list[Tracker]:
    """Start the trackers that the configuration names. `next_step` is the first step that will be logged."""
    trackers: list[Tracker] = []
    if config.observe.tensorboard:
        trackers.append(TensorBoard(run_folder / "tensorboard", next_step))
    if config.observe.wandb_project is not None:
        trackers.append(WeightsAndBiases(config, run_folder))
    return trackers


class TensorBoard:
    """Event files in `folder`. What an interrupted process logged from `next_step` on is hidden from the curves."""

    def __init__(self, folder: Path, next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=next_step, flush_secs=10)

    def log(self, record: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        try:
            for key, value in _numbers(record).items():
                self._writer.add_scalar(key, value, record["step"])
        except OSError as error:
            logger.warning("TensorBoard is off for the rest of the run: %s", error)
            self._writer = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """One wandb run per run folder; its id is kept in `wandb_id`, so that a resumed run goes on in the same curves."""

    def __init__(self, config: RunConfig, run_folder: Path) -> None:
        import wandb

        id_file = run_folder / "wandb_id"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex)
        try:
            self._run = wandb.init(
                project=config.observe.wandb_project,
                name=config.name,
                id=id_file.read_text(),
                resume="allow",
                dir=str(run_folder),
                config=asdict(config),
            )
        except wandb.Error as error:
            raise _wandb_failed(error) from error
        self._error = wandb.Error
        # wandb's own step never goes back, so repeated steps of a resumed run would be dropped.
        self._run.define_metric("*", step_metric="step")

    def log(self, record: Mapping[str, Any]) -> None:
        try:
            self._run.log({"step": record["step"], **_numbers(record)})
        except self._error as error:
            logger.warning("Weights & Biases missed step %s: %s", record["step"], error)

    def close(self) -> None:
        self._run.finish()


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in record.items() if key != "step" and isinstance(value, int | float) and math.isfinite(value)}
