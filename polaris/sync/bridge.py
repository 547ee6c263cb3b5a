"""Weights from the trainers to engines on ranks of their own: a process group beside all others, which may break and be made anew."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_POLL_S = 0.0002
_HEADER = 1024
"""Bytes of the header that goes before each tensor: its name, shape and dtype in JSON, or nothing after the last one."""


class BridgeBroken(RuntimeError):
    """A member is gone, or does not move: no error of this rank's own."""


class Bridge:
    """The first trainer, rank 0, which sends, and all others, which receive. Nobody's default group: whoever is gone breaks this one alone.

    `store` is that of this bridge alone. The constructor returns when all `size` ranks are there, and raises `BridgeBroken` where they are
    not after `timeout`; so do the other members where somebody is gone.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, device: torch.device, timeout: timedelta) -> None:
        self._device, self._timeout = device, timeout
        with _breaking():
            if device.type == "cuda":
                options = dist.ProcessGroupNCCL.Options()
                options._timeout = timeout
                with _without_watchdog():
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
        with _breaking():
            self._wait_for(tensor)

    def _wait_for(self, tensor: Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        work = self._group.broadcast([tensor], options)
        if self._device.type == "cuda":
            self._watch(work)
        work.wait()

    def _watch(self, work: dist.Work) -> None:
        """Wait for NCCL, which would wait for a member that is gone on the device, for ever."""
        deadline = time.monotonic() + self._timeout.total_seconds()
        while not work.is_completed():
            if time.monotonic() > deadline:
                self._group.abort()
                raise RuntimeError(f"a broadcast of weights did not end within {self._timeout.total_seconds() / 60:g} minutes")
            time.sleep(_POLL_S)
        if not work.is_success():
            self._group.abort()
            raise RuntimeError("a broadcast of weights failed: a member is gone")


@contextmanager
def _breaking() -> Iterator[None]:
    """What gloo and NCCL raise where a member is gone, as `BridgeBroken`."""
    try:
        yield
    except RuntimeError as error:
        raise BridgeBroken(str(error)) from error


@contextmanager
def _without_watchdog() -> Iterator[None]:
    """A group that is made here does not end its process where a member is gone, as NCCL groups of torch do."""
    name = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    before, os.environ[name] = os.environ.get(name), "0"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def place_of(store: dist.Store, generation: int) -> dist.Store:
    """Where the ranks of a bridge meet; `generation` counts the bridges of a job."""
    return dist.PrefixStore(prefix_of(generation), store)


def prefix_of(generation: int) -> str:
    """That of its keys in the store."""
    return f"bridge/{generation}"
