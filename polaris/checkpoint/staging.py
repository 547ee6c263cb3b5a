"""A copy of the training state in host memory, from which a checkpoint is written while training goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from polaris.host import free_host_memory
from polaris.learn.eight_bit import own, parts

_LEFT = 0.9
"""Most of the free host memory that copies may take."""


class Staging:
    """Buffers that are kept from one copy to the next."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, state: Any, name: str = "") -> Any:
        """`state`, nested dictionaries and lists, with its tensors in host memory; it is overwritten by the next copy."""
        copied = self._copy(state, name)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach(), name)
        if isinstance(value, dict):
            return {key: self._copy(one, f"{name}/{key}") for key, one in value.items()}
        if isinstance(value, list):
            return [self._copy(one, f"{name}/{place}") for place, one in enumerate(value)]
        return value

    def _copy_tensor(self, value: Tensor, name: str) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None:
            self._buffers[name] = buffer = value.to("cpu", copy=True)
            own(buffer)
        else:
            for copied, part in zip(parts(buffer), parts(value), strict=True):
                copied.copy_(part, non_blocking=True)
        return buffer

    def close(self) -> None:
        """Free the buffers."""
        self._buffers.clear()


def fits(state: Any) -> bool:
    """Whether the host has memory for copies of the states of all its ranks, if each is as large as this one."""
    needed = sum(part.nbytes for tensor in _tensors(state) for part in parts(tensor)) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return needed <= _LEFT * free_host_memory()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)
