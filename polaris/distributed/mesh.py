"""This process among the ranks: device, process group, and the small host-side collectives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

T = TypeVar("T")

# Host-side collectives wait for the slowest rank's rollouts: one response of 90,000 tokens may take an hour, and an evaluation's share
# of them several. A rank that dies is noticed at once, by torchrun.
_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This rank's place. `mesh` spans all ranks in one data-parallel dimension."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all ranks, in rank order, on every rank."""
        if self.size == 1:
            return list(items)
        parts: list[Sequence[T]] = [()] * self.size
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank; the same answer on every rank."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(int(flag))
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor)

    def barrier(self) -> None:
        self.any(False)


def start() -> World:
    """Join the ranks that torchrun started, or be the only one."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("data",))
    return World(rank=dist.get_rank(), size=dist.get_world_size(), device=device, mesh=mesh)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
