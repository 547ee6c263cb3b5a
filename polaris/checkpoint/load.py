"""Read one checkpoint into a sharded policy, on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from polaris.checkpoint import layout
from polaris.checkpoint.state import Kept, TrainState
from polaris.distributed.mesh import World
from polaris.distributed.seeds import restore_random_state
from polaris.model.policy import Policy


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, world: World, kept: Sequence[Kept] = ()) -> TrainState:
    """Restore weights, optimizer, `kept` and, where this rank was there before, its random generators; the state comes back."""
    weights, optimizer_state = get_state_dict(policy, optimizer)
    target: dict[str, Any] = {"model": weights, "optimizer": optimizer_state}
    dcp.load(target, checkpoint_id=folder)
    set_state_dict(policy, optimizer, model_state_dict=target["model"], optim_state_dict=target["optimizer"])
    rank_file = layout.rank_file(folder, world.rank)
    if rank_file.is_file():
        restore_random_state(torch.load(rank_file, weights_only=True))
    for record in kept:
        record.load(folder)
    return TrainState.from_json((folder / layout.STATE).read_text())
