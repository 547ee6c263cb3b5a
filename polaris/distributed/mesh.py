"""This process among the ranks: device, process groups, and small host-side collectives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from polaris.config.training import DistributedConfig
from polaris.distributed import watch

T = TypeVar("T")
DEFAULT_LIMITS = DistributedConfig()
_GRACE = timedelta(minutes=2)
"""Collectives time out this much later than `polaris.distributed.watch`, which can name the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This rank's place. `mesh` spans all ranks in one data-parallel dimension; its process group is for the collectives of an update,
    which take minutes at most. The default group is for host collectives, which may wait for hours."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    shared: Any = None
    """Connection to the key-value store of all ranks; None where there is one rank."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def store(self) -> dist.Store:
        """The key-value store that all ranks share; alone, a new one."""
        return dist.HashStore() if self.shared is None else self.shared

    def neighbours(self, size: int) -> dist.ProcessGroup | None:
        """The group of `size` ranks, one after the other, that this rank is in; None if it is alone. A collective on every rank."""
        if size == 1:
            return None
        ranks = range(self.size)
        groups = [dist.new_group(ranks[start : start + size], backend="gloo") for start in ranks[::size]]
        return groups[self.rank // size]

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all ranks, in rank order, on every rank."""
        if self.size == 1:
            return list(items)
        parts: list[Sequence[T]] = [()] * self.size
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank; the same answer on every rank."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(int(flag))
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor)

    def barrier(self) -> None:
        self.any(False)


def start(limits: DistributedConfig = DEFAULT_LIMITS) -> World:
    """Join the ranks that torchrun started, or be the only one."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timedelta(hours=limits.wait_timeout_hours) + _GRACE)
        # The watch has its own client, since waits of the main thread in the store would block it.
        watch.start(_store().clone(), dist.get_rank(), dist.get_world_size(), limits)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = dist.PrefixStore(f"sampling/{attempt}", _store().clone()) if dist.get_world_size() > 1 else None
    group = dist.new_group(backend=backend, timeout=timedelta(minutes=limits.update_timeout_minutes) + _GRACE)
    mesh = DeviceMesh.from_group(group, device.type, mesh_dim_names=("data",))
    return World(rank=dist.get_rank(), size=dist.get_world_size(), device=device, mesh=mesh, shared=shared)


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def stop() -> None:
    """Leave the process group."""
    watch.stop()
    if dist.is_initialized():
        dist.destroy_process_group()
