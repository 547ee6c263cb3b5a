"""This process among the ranks: device, process groups, and small host-side collectives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from polaris.config.rollout import Roles
from polaris.config.training import DistributedConfig
from polaris.distributed import restart, sequence_parallel, watch
from polaris.distributed.sequence_parallel import SequenceRanks
from polaris.distributed.watch import attempt
from polaris.errors import RunFailed

T = TypeVar("T")
DEFAULT_LIMITS, ALL_ALIKE = DistributedConfig(), Roles()
_GRACE = timedelta(minutes=2)
"""Collectives time out this much later than `polaris.distributed.watch`, which can name the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The processes that torchrun started, whatever they do, and its key-value store; None where there is one alone."""

    rank: int = 0
    size: int = 1
    store: Any = None


ALONE = Job()


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where the job's store is, and the prefix of all keys of `shared_store` in it."""

    host: str
    port: int
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This rank's place among those with its role. `mesh` spans all of them: in one dimension, or in two where there are copies of the
    state, each sharded over neighbours. Its process groups are for the collectives of an update, which take minutes at most. The default
    group is for host collectives, which may wait for hours."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    sequence: SequenceRanks = sequence_parallel.ALONE
    """The ranks that train on the same packs, each with its part of their tokens."""
    shared: Any = None
    """Connection to the key-value store of all ranks of the job; None where there is one rank."""
    job: Job = ALONE
    roles: Roles = ALL_ALIKE
    """Of the ranks of the job: where some only sample, engines are theirs, and trainers have none."""
    server: int | None = None
    """The number of the server outside the job that this process drives, which is no rank."""
    place: StorePlace | None = None
    """Where that server finds the store."""
    halvings: int = 0
    """How often packs are halved: starts before this one, by the same torchrun, that ended since a GPU's memory was exhausted."""

    @property
    def shares(self) -> tuple[int, int]:
        """Which share of the packs this rank trains, and how many shares there are."""
        return self.rank // self.sequence.size, self.size // self.sequence.size

    def pack_tokens(self, tokens_per_pack: int) -> int:
        """Most tokens of a pack, which the ranks of a sequence share, where trainer.tokens_per_pack is what each of them has."""
        return max(1, tokens_per_pack * self.sequence.size // 2**self.halvings)

    @property
    def samples(self) -> bool:
        """Whether this process only samples; the world is then that of its engine."""
        return self.server is not None or self.roles.place_of(self.job.rank, self.job.size) is not None

    @property
    def engines(self) -> int:
        """Engines that have ranks of their own, and behind them servers outside the job."""
        return self.roles.engine_of_server(self.roles.servers)

    @property
    def engine(self) -> int:
        """The number of the engine of a rank that only samples, or of the server that this process drives."""
        if self.server is not None:
            return self.roles.engine_of_server(self.server)
        place = self.roles.place_of(self.job.rank, self.job.size)
        assert place is not None, "this rank trains"
        return place[0]

    def ranks_of(self, engine: int) -> range:
        """The ranks of the job that an engine has; none if it is a server outside of it."""
        size = self.roles.ranks_per_engine
        return range(self.job.size - self.roles.engine_ranks, self.job.size)[engine * size : (engine + 1) * size]

    @property
    def is_main(self) -> bool:
        return self.rank == 0 and not self.samples

    def store(self) -> dist.Store:
        """The key-value store that all ranks share; alone, a new one."""
        return dist.HashStore() if self.shared is None else self.shared

    def neighbours(self, size: int) -> dist.ProcessGroup | None:
        """The group of `size` ranks, one after the other, that this rank is in; None if it is alone. A collective on every rank."""
        if size == 1:
            return None
        return _neighbours(self.rank, self.size, size, backend="gloo")

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


def start(limits: DistributedConfig = DEFAULT_LIMITS, roles: Roles = ALL_ALIKE, life: int = 0) -> World:
    """Join the ranks that torchrun started, or be the only one. Trainers have a group of their own, and so has each engine: those that die
    take no group of others with them, and vLLM, whose groups are parts of the default one, needs none but its own ranks. `life` counts how
    often this rank's engine was started again."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    job = join(limits)
    name, rank, size = "trainers", job.rank, job.size - roles.engine_ranks
    if (place := roles.place_of(job.rank, job.size)) is not None:
        engine, rank = place
        name, size = f"engine/{engine}/{life}", roles.ranks_per_engine
    store = dist.HashStore() if job.store is None else dist.PrefixStore(f"groups/{attempt()}/{name}", job.store)
    dist.init_process_group(_backend(device), store=store, rank=rank, world_size=size, timeout=_wait(limits))
    if job.size > 1:  # the watch has its own client, since waits of the main thread in the store would block it
        watch.start(job.store.clone(), job.rank, job.size, limits, job.size - roles.engine_ranks)
    shared = shared_store(job) if job.size > 1 or roles.servers else None
    mesh, sequence = divide(rank, size, device, limits if name == "trainers" else DEFAULT_LIMITS)
    halvings = restart.halvings(job.store)
    return World(rank=rank, size=size, device=device, mesh=mesh, sequence=sequence, shared=shared, job=job, roles=roles, halvings=halvings)


def divide(rank: int, size: int, device: torch.device, limits: DistributedConfig) -> tuple[DeviceMesh, SequenceRanks]:
    """The mesh of the ranks that train, and those that share packs with this one; a collective on all of them."""
    options: dict[str, Any] = {"backend": _backend(device), "timeout": timedelta(minutes=limits.update_timeout_minutes) + _GRACE}
    shards, sharing = size // limits.replicas, limits.sequence_parallel
    if limits.replicas == 1:
        mesh = DeviceMesh.from_group(dist.new_group(**options), device.type, mesh_dim_names=("shard",))
    else:
        ranks = torch.arange(size).view(-1, shards)
        neighbours = _neighbours(rank, size, shards, **options)
        copies = [dist.new_group(alike.tolist(), **options) for alike in ranks.T][rank % shards]
        mesh = DeviceMesh.from_group([copies, neighbours], device.type, ranks, mesh_dim_names=("replicate", "shard"))
    if sharing == 1:
        return mesh, sequence_parallel.ALONE
    return mesh, SequenceRanks(_neighbours(rank, size, sharing, **options), sharing, rank % sharing)


def host_group(limits: DistributedConfig) -> dist.ProcessGroup:
    """A group of all ranks that train, for a thread whose host collectives must not mix with the main thread's; a collective on all."""
    return dist.new_group(backend="gloo", timeout=_wait(limits))


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def _neighbours(rank: int, size: int, count: int, **options: Any) -> dist.ProcessGroup:
    """The group of `count` ranks, one after the other, that this one is in; a collective on all of the `size` ranks."""
    ranks = range(size)
    return [dist.new_group(ranks[start : start + count], **options) for start in ranks[::count]][rank // count]


def beside(roles: Roles, server: int, limits: DistributedConfig, place: StorePlace) -> World:
    """The world of a process below the first trainer that drives a server outside the job: it speaks through the store alone, which is at
    the trainer's `store_place`."""
    client = dist.TCPStore(place.host, place.port, is_master=False, wait_for_workers=False, timeout=_wait(limits))
    job = Job(size=int(os.environ["WORLD_SIZE"]), store=client)
    shared = dist.PrefixStore(place.prefix, client)
    none = cast(DeviceMesh, None)
    return World(rank=0, size=1, device=torch.device("cpu"), mesh=none, shared=shared, job=job, roles=roles, server=server, place=place)


def store_place(job: Job) -> StorePlace:
    """For processes that are no ranks. Some versions of torch have a part of the store for each attempt of torchrun."""
    part = "" if isinstance(job.store, dist.TCPStore) else f"/worker/attempt_{attempt()}/"
    return StorePlace(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), f"{part}{_shared()}")


def shared_store(job: Job) -> Any:
    """A connection of its own to the key-value store of all ranks, for what trainers and engines say to each other."""
    return dist.PrefixStore(_shared(), job.store.clone())


def _shared() -> str:
    return f"sampling/{attempt()}"


_job: Job | None = None


def join(limits: DistributedConfig = DEFAULT_LIMITS) -> Job:
    """The job that torchrun started, before its ranks have roles and groups; or this process alone. A second call gives the same."""
    global _job
    if _job is None:
        _job = ALONE
        if "RANK" in os.environ:
            store, rank, size = next(dist.rendezvous("env://", timeout=_wait(limits)))
            store.set_timeout(_wait(limits))
            _job = Job(rank=rank, size=size, store=store)
    return _job


def agree(word: str, job: Job) -> list[str]:
    """The words of all ranks of the job, in rank order. It needs no process group, so no rank waits for another one's role.

    Raises:
        RunFailed: a rank has not come within the store's time limit.
    """
    keys = [f"polaris/{attempt()}/word/{rank}" for rank in range(job.size)]
    job.store.set(keys[job.rank], word)
    try:
        job.store.wait(keys)
    except dist.DistStoreError as error:
        missing = ", ".join(str(rank) for rank, key in enumerate(keys) if not job.store.check([key]))
        raise RunFailed(f"rank {missing} did not get through its checks in time; look at its own output, and start again") from error
    return [job.store.get(key).decode() for key in keys]


def _wait(limits: DistributedConfig) -> timedelta:
    return timedelta(hours=limits.wait_timeout_hours) + _GRACE


def stop() -> None:
    """Leave the process group."""
    global _job
    watch.stop()
    if dist.is_initialized():
        dist.destroy_process_group()
    _job = None
