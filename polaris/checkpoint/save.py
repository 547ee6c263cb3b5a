"""Write one checkpoint: every rank its shards, rank 0 the commit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict

from polaris.checkpoint import layout
from polaris.checkpoint.state import Kept, TrainState
from polaris.distributed.mesh import World
from polaris.distributed.seeds import random_state
from polaris.errors import RunFailed
from polaris.model.policy import Policy


def save(
    checkpoints: Path,
    state: TrainState,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    world: World,
    keep: int,
    kept: Sequence[Kept] = (),
) -> Path:
    """Save weights, optimizer, random generators of every rank, `state` and `kept`; then drop all but the newest `keep` checkpoints."""
    temporary = layout.temporary_folder(checkpoints, state.step)
    final = layout.step_folder(checkpoints, state.step)
    if world.is_main:
        checkpoints.mkdir(parents=True, exist_ok=True)
        layout.clean(checkpoints, keep)
        temporary.mkdir()
    world.barrier()
    weights, optimizer_state = get_state_dict(policy, optimizer)
    try:
        dcp.save({"model": weights, "optimizer": optimizer_state}, checkpoint_id=temporary)
        torch.save(random_state(), layout.rank_file(temporary, world.rank))
    except (RuntimeError, OSError, CheckpointException) as error:
        free = shutil.disk_usage(checkpoints).free >> 20
        reason = str(error).splitlines()[-1 if isinstance(error, CheckpointException) else 0]  # its first line names ranks only
        raise RunFailed(
            f"the checkpoint of step {state.step} cannot be written to {checkpoints}, where {free:,} MiB are free "
            f"({reason}); make room, and the same command goes on from the last complete one"
        ) from error
    world.barrier()
    if world.is_main:
        (temporary / layout.STATE).write_text(state.to_json())
        for record in kept:
            record.save(temporary)
        layout.commit(temporary, final)
        layout.clean(checkpoints, keep)
    world.barrier()
    return final
