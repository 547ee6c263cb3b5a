"""Checkpoints: every rank writes its shards, rank 0 the commit. Any number of ranks can load one, to resume or to begin a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from polaris.checkpoint import layout
from polaris.distributed.mesh import World
from polaris.distributed.seeds import random_state, restore_random_state
from polaris.errors import RunFailed
from polaris.model.policy import Policy

_PARTS = StateDictOptions(strict=False)
"""The model beside adapters is not saved: it is that of model.path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """State after a completed step. `sampler` is the position in the prompts; `nonfinite_streak` counts skipped updates in a row."""

    step: int
    version: int
    sampler: dict[str, Any]
    nonfinite_streak: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> TrainState:
        return TrainState(**json.loads(text))


class Kept(Protocol):
    """Training state that is the same on every rank: rank 0 writes it into a checkpoint, every rank reads it."""

    def save(self, folder: Path) -> None:
        """Write its file into `folder`; the checkpoint's commit makes it durable."""
        ...

    def load(self, folder: Path) -> None:
        """Replace the state by the one that `save` wrote."""
        ...


def save(
    checkpoints: Path,
    state: TrainState,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    world: World,
    keep: int,
    kept: Sequence[Kept] = (),
) -> Path:
    """Save trained weights, optimizer, random generators of every rank, `state` and `kept`; then remove all but the newest `keep`."""
    temporary = layout.temporary_folder(checkpoints, state.step)
    final = layout.step_folder(checkpoints, state.step)
    if world.is_main:
        checkpoints.mkdir(parents=True, exist_ok=True)
        layout.remove_old(checkpoints, keep)
        temporary.mkdir()
    world.barrier()
    weights, optimizer_state = _trained(policy, optimizer)
    try:
        dcp.save({"model": weights, "optimizer": optimizer_state}, checkpoint_id=temporary)
        torch.save(random_state(), layout.rank_file(temporary, world.rank))
    except (RuntimeError, OSError, CheckpointException) as error:
        free = shutil.disk_usage(checkpoints).free >> 20
        reason = str(error).splitlines()[-1 if isinstance(error, CheckpointException) else 0]  # the first line only names ranks
        raise RunFailed(
            f"the checkpoint of step {state.step} cannot be written to {checkpoints}, where {free:,} MiB are free "
            f"({reason}); free some space, and the same command goes on from the last complete one"
        ) from error
    world.barrier()
    if world.is_main:
        (temporary / layout.STATE).write_text(state.to_json())
        for record in kept:
            record.save(temporary)
        layout.commit(temporary, final)
        layout.remove_old(checkpoints, keep)
    world.barrier()
    return final


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, world: World, kept: Sequence[Kept] = ()) -> TrainState:
    """Restore weights, optimizer, `kept` and, if the checkpoint has this rank, its random generators; returns the state."""
    begin_with(folder, policy, optimizer)
    rank_file = layout.rank_file(folder, world.rank)
    if rank_file.is_file():
        restore_random_state(torch.load(rank_file, weights_only=True))
    state = TrainState.from_json((folder / layout.STATE).read_text())
    for record in kept if state.step else ():  # at step 0 they hold only what the phases before it count anew
        record.load(folder)
    return state


def begin_with(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer | None) -> None:
    """Restore weights and, if `optimizer` is given, its moments and step counts.

    Learning rate, betas, eps and weight decay stay as configured now.
    """
    if optimizer is None:
        weights, _ = _trained(policy, None)
        dcp.load({"model": weights}, checkpoint_id=folder)
        set_model_state_dict(policy, weights, options=_PARTS)
        return
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    weights, optimizer_state = _trained(policy, optimizer)
    target: dict[str, Any] = {"model": weights, "optimizer": optimizer_state}
    dcp.load(target, checkpoint_id=folder)
    set_state_dict(policy, optimizer, model_state_dict=target["model"], optim_state_dict=target["optimizer"], options=_PARTS)
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)


def _trained(policy: Policy, optimizer: torch.optim.Optimizer | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights that are trained by their names, and the optimizer's state, if it is given."""
    weights, optimizer_state = get_state_dict(policy, [] if optimizer is None else optimizer)
    frozen = {name for name, parameter in policy.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: value for name, value in weights.items() if name not in frozen}, optimizer_state
