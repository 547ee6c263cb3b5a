"""What a checkpoint holds, and loading it: any number of ranks can, to resume or to begin a run. `saver` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
)

from polaris.checkpoint import layout
from polaris.distributed.mesh import World
from polaris.distributed.seeds import restore_random_state
from polaris.learn.eight_bit import float32_targets, take
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
    weights, moments = trained_state(policy, optimizer)
    read = float32_targets(moments, weights)
    dcp.load({"model": weights, "optimizer": {"state": read}}, checkpoint_id=folder)
    set_model_state_dict(policy, weights, options=_PARTS)
    take(moments, read)


def trained_state(policy: Policy, optimizer: torch.optim.Optimizer | None) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The weights that are trained by their names; and moments and step counts of each, if `optimizer` is given."""
    weights, optimizer_state = get_state_dict(policy, [] if optimizer is None else optimizer)
    moments: Any = optimizer_state.get("state", {})
    frozen = {name for name, parameter in policy.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: value for name, value in weights.items() if name not in frozen}, moments
