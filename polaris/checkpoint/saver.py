"""Saving without a wait: the state is copied, training goes on, and a thread of every rank writes and commits the copy."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import WriteItem

from polaris.checkpoint import layout
from polaris.checkpoint.staging import Staging, fits
from polaris.checkpoint.store import Kept, TrainState, trained_state
from polaris.config.training import CheckpointConfig, DistributedConfig
from polaris.distributed import watch
from polaris.distributed.mesh import World, host_group
from polaris.distributed.seeds import random_state
from polaris.errors import RunFailed
from polaris.learn.eight_bit import decoded, is_coded
from polaris.model.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A complete checkpoint: its folder, and the seconds it took, of which training has waited `waited_s`."""

    step: int
    folder: Path
    seconds: float
    waited_s: float

    def __str__(self) -> str:
        return f"checkpoint of step {self.step}: {self.seconds:.1f}s, of which training waited {self.waited_s:.2f}s"


class Saver:
    """Saves a run's checkpoints, one after the other. All ranks that train call the same methods in the same order.

    With `checkpoint.asynchronous` a save takes a copy in host memory and returns. Where a host has too little memory for that, a `note`
    says so, and training waits for each save. The main thread calls `on_saved` once a checkpoint is complete, within the next call of any
    method. After a block that fails, a save that is under way is finished first.
    """

    def __init__(
        self,
        checkpoints: Path,
        config: CheckpointConfig,
        limits: DistributedConfig,
        world: World,
        on_saved: Callable[[Saved], None],
        note: Callable[[str], None],
    ) -> None:
        self._checkpoints, self._config, self._world = checkpoints, config, world
        self._on_saved, self._note = on_saved, note
        self._patience_s = 60 * limits.update_timeout_minutes
        self._group = host_group(limits)
        self._staging, self._copies = Staging(), config.asynchronous
        self._write: _Write | None = None
        self._waited_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.finish()
        elif self._write is not None:
            self._write.thread.join(self._patience_s)  # other ranks may be gone
        if self._write is None or not self._write.thread.is_alive():
            self._staging.close()

    def save(self, state: TrainState, policy: Policy, optimizer: torch.optim.Optimizer, kept: Sequence[Kept] = ()) -> None:
        """Begin to save trained weights, optimizer, random generators of every rank, `state` and `kept`, after the save before is complete.

        All of them may change as soon as this returns. Checkpoints but the newest `checkpoint.keep` are removed at the end.

        Raises:
            RunFailed: it, or the save before it, cannot be written.
        """
        self.finish()
        began = time.monotonic()
        weights, moments = trained_state(policy, optimizer)
        whole: dict[str, Any] = {"model": weights, "optimizer": {"state": moments}}
        if self._copies and self._world.any(not fits(whole)):
            self._copies = False
            self._note("checkpoints: the host has too little memory for a copy of the state, so training waits until each is written")
        write = _Write(self._checkpoints, state, self._config.keep, self._world, self._group)
        write.begin(self._staging.copy(whole) if self._copies else whole, kept)
        self._write = write
        self._waited(write, began)
        if not self._copies:
            self.finish()

    def look(self) -> None:
        """Go on at once, unless a write is through: then say so, or raise `RunFailed` if it has failed."""
        if self._write is not None and not self._world.any(self._write.thread.is_alive()):
            self.finish()

    def finish(self) -> None:
        """Wait until the save that is under way is complete. Raises `RunFailed` if it cannot be written."""
        if self._write is None:
            return
        write, began = self._write, time.monotonic()
        if write.thread.is_alive():
            with watch.phase("checkpoint"):
                write.thread.join()
            self._waited(write, began)
        self._write = None
        if write.error is not None:
            raise write.error
        self._on_saved(Saved(step=write.step, folder=write.final, seconds=write.seconds, waited_s=write.waited_s))

    def waited_s(self) -> float:
        """Seconds that training has waited for saves since this was last asked."""
        waited, self._waited_s = self._waited_s, 0.0
        return waited

    def _waited(self, write: _Write, began: float) -> None:
        seconds = time.monotonic() - began
        write.waited_s += seconds
        self._waited_s += seconds


class _InFloat32(dcp.DefaultSavePlanner):
    """Writes 8-bit moments as float32, one at a time, so that any number of ranks and either AdamW can load them."""

    def transform_object(self, write_item: WriteItem, object: Any) -> Any:
        found = super().transform_object(write_item, object)
        return decoded(found) if isinstance(found, Tensor) and is_coded(found) else found


class _Write:
    """One save. What is small is taken down at once; the thread writes the state, and rank 0 commits when all ranks have written."""

    def __init__(self, checkpoints: Path, state: TrainState, keep: int, world: World, group: Any) -> None:
        self._checkpoints, self._state, self._keep, self._world, self._group = checkpoints, state, keep, world, group
        self.step, self.final = state.step, layout.step_folder(checkpoints, state.step)
        self._temporary = layout.temporary_folder(checkpoints, state.step)
        self._began, self.seconds, self.waited_s = time.monotonic(), 0.0, 0.0
        self.error: RunFailed | None = RunFailed(f"the checkpoint of step {state.step} was not written: see the traceback of its thread")
        self.thread = threading.Thread(target=self._run, name="polaris-checkpoint", daemon=True)

    def begin(self, state: dict[str, Any], kept: Sequence[Kept]) -> None:
        self._tensors, generators = state, io.BytesIO()
        torch.save(random_state(), generators)
        self._generators = generators.getvalue()
        self._early: OSError | None = None
        try:
            if self._world.is_main:
                self._write_small(kept)
        except OSError as error:  # the other ranks hear of it in their threads
            self._early = error
        self.thread.start()

    def _write_small(self, kept: Sequence[Kept]) -> None:
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        layout.remove_old(self._checkpoints, self._keep)
        self._temporary.mkdir()
        (self._temporary / layout.STATE).write_text(self._state.to_json())
        for record in kept:
            record.save(self._temporary)

    def _run(self) -> None:
        try:
            for part in (self._check_small, self._write_shards, self._commit):
                self._together(part)
            self.error = None
        except RunFailed as error:  # raised again by the main thread
            self.error = error
        self.seconds = time.monotonic() - self._began

    def _check_small(self) -> None:
        if self._early is not None:
            raise self._early

    def _write_shards(self) -> None:
        dcp.save(self._tensors, checkpoint_id=self._temporary, planner=_InFloat32(), process_group=self._group)
        layout.rank_file(self._temporary, self._world.rank).write_bytes(self._generators)

    def _commit(self) -> None:
        if self._world.is_main:
            layout.commit(self._temporary, self.final)
            layout.remove_old(self._checkpoints, self._keep)

    def _together(self, part: Callable[[], None]) -> None:
        """Do a part on all ranks. Where it fails on one of them, it has failed on all."""
        failed: BaseException | None = None
        try:
            part()
        except (RuntimeError, OSError, CheckpointException) as error:
            failed = error
        reasons: list[str] = [""] * self._world.size
        dist.all_gather_object(reasons, "" if failed is None else _reason(failed), group=self._group)
        if any(reasons):
            raise self._failure(next(filter(None, reasons))) from failed

    def _failure(self, reason: str) -> RunFailed:
        free = shutil.disk_usage(self._checkpoints if self._checkpoints.is_dir() else self._checkpoints.parent).free >> 20
        return RunFailed(
            f"the checkpoint of step {self.step} cannot be written to {self._checkpoints}, where {free:,} MiB are free "
            f"({reason}); free some space, and the same command goes on from the last complete one"
        )


def _reason(error: BaseException) -> str:
    """One line; the first one of a CheckpointException only names ranks."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1 if isinstance(error, CheckpointException) else 0]
