"""Read one checkpoint into a sharded policy, on any number of ranks: a run's own, to go on, or another run's, to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from polaris.checkpoint import layout
from polaris.checkpoint.state import Kept, TrainState
from polaris.distributed.mesh import World
from polaris.distributed.seeds import restore_random_state
from polaris.model.policy import Policy


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, world: World, kept: Sequence[Kept] = ()) -> TrainState:
    """Restore weights, optimizer, `kept` and, where this rank was there before, its random generators; the state comes back."""
    begin_with(folder, policy, optimizer)
    rank_file = layout.rank_file(folder, world.rank)
    if rank_file.is_file():
        restore_random_state(torch.load(rank_file, weights_only=True))
    for record in kept:
        record.load(folder)
    return TrainState.from_json((folder / layout.STATE).read_text())


def begin_with(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer | None) -> None:
    """Restore weights, and the optimizer's moments and step counts where one is given.

    Its learning rate, betas, eps and weight decay stay: they are the configuration's, which may have changed.
    """
    if optimizer is None:
        weights = get_model_state_dict(policy)
        dcp.load({"model": weights}, checkpoint_id=folder)
        set_model_state_dict(policy, weights)
        return
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    weights, optimizer_state = get_state_dict(policy, optimizer)
    target: dict[str, Any] = {"model": weights, "optimizer": optimizer_state}
    dcp.load(target, checkpoint_id=folder)
    set_state_dict(policy, optimizer, model_state_dict=target["model"], optim_state_dict=target["optimizer"])
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)
