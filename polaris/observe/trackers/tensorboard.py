"""TensorBoard's event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polaris.config.job import JobConfig
from polaris.observe.trackers.tracker import Tracker, import_package, logger, require_writable

_WITHOUT = "set observe.tensorboard = false"


class TensorBoard(Tracker):
    """Event files in `tensorboard/`. What an interrupted process logged from `next_step` on is hidden from the curves."""

    def check(self, config: JobConfig) -> None:
        import_package("torch.utils.tensorboard", "tensorboard", "TensorBoard", "tensorboard", _WITHOUT)
        require_writable(config.folder / "tensorboard", _WITHOUT)

    def on_start(self, config: JobConfig, folder: Path, next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step, flush_secs=10)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        try:
            for key, value in numbers.items():
                self._writer.add_scalar(key, value, step)
        except OSError as error:
            logger.warning("TensorBoard is off for the rest of the run: %s", error)
            self._writer = None

    def on_stop(self, why: str) -> None:
        if self._writer is not None:
            self._writer.close()
