"""Weights from the trainers to engines on ranks of their own: a process group beside all others, which may break and be made anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polaris.distributed.mesh import World

_HEADER = 1024
"""Bytes of the header that goes before each tensor: its name, shape and dtype in JSON, or nothing after the last one."""


class Bridge:
    """The first trainer, which sends, and all engines, which receive. Nobody's default group: whoever is gone breaks this one alone.

    `generation` counts the bridges of a job. The constructor returns when all are there.
    """

    def __init__(self, world: World, generation: int, timeout: timedelta) -> None:
        store = dist.PrefixStore(f"bridge/{generation}", world.shared)
        rank, size = (1 + world.sampler if world.samples else 0), 1 + world.roles.engine_ranks
        self._device = world.device
        if world.device.type == "cuda":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            self._group: Any = dist.ProcessGroupNCCL(store, rank, size, options)
        else:
            self._group = dist.ProcessGroupGloo(store, rank, size, timeout)

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """All tensors, one at a time; called by the first trainer."""
        for name, tensor in weights:
            self._header(json.dumps([name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]))
            self._broadcast(tensor.contiguous())
        self._header("")

    def receive(self) -> Iterator[tuple[str, Tensor]]:
        """What is sent, as it comes; called by every engine, to its end."""
        while said := self._header():
            name, shape, dtype = json.loads(said)
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=self._device)
            self._broadcast(tensor)
            yield name, tensor

    def _header(self, said: str = "") -> str:
        """The header that the trainer has `said`."""
        data = said.encode()
        assert len(data) <= _HEADER, said
        tensor = torch.tensor(list(data.ljust(_HEADER, b"\0")), dtype=torch.uint8, device=self._device)
        self._broadcast(tensor)
        return bytes(tensor.tolist()).rstrip(b"\0").decode()

    def _broadcast(self, tensor: Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        self._group.broadcast([tensor], options).wait()
