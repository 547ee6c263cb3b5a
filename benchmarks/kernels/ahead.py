"""Compile kernels as they are launched, for a chip that is not here: launches are recorded, nothing runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import JITFunction


@dataclass(frozen=True, slots=True)
class Chip:
    """A target of Triton, the bytes of shared memory a block may have, and its multiprocessors."""

    target: GPUTarget
    shared_memory: int
    processors: int


def _nvidia(capability: int, kibibytes: int, processors: int) -> Chip:
    return Chip(GPUTarget("cuda", capability, 32), kibibytes * 1024, processors)


CHIPS = {
    "sm_80": _nvidia(80, 163, 108),
    "sm_89": _nvidia(89, 99, 142),
    "sm_90": _nvidia(90, 227, 132),
    "sm_100": _nvidia(100, 227, 148),
    "sm_120": _nvidia(120, 99, 170),
    "gfx942": Chip(GPUTarget("hip", "gfx942", 64), 64 * 1024, 304),
}
"""A100, RTX 4090 and L40S, H100 and H200, B200, RTX 5090, MI300X."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: `name` as operation.kernel, what was compiled for it, its constants and options, and its number of programs."""

    name: str
    kernel: Any
    constants: dict[str, Any]
    programs: int


class _Compiler(DriverBase):
    """A driver that names a target and owns no device."""

    def __init__(self, chip: str) -> None:
        self.chip = chip

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return CHIPS[self.chip].target

    def get_current_device(self) -> int:
        return list(CHIPS).index(self.chip)  # Triton remembers the target of a device: each needs a number of its own

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")

    def get_device_interface(self) -> Any:
        return torch.cuda

    def get_benchmarker(self) -> Any:
        raise NotImplementedError

    def get_empty_cache_for_benchmark(self) -> Any:
        raise NotImplementedError

    def clear_cache(self, cache: Any) -> None:
        raise NotImplementedError

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


@contextmanager
def recorded(chip: str) -> Iterator[list[Launch]]:
    """Every launch inside compiles for the chip and runs nothing; yields the launches so far, in their order."""
    run, launches = JITFunction.run, []

    def compile_only(function: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(function, *arguments, grid=grid, warmup=True, **options)
        name = ".".join([*function.__module__.split(".")[-2:-1], function.__name__])
        launches.append(Launch(name, kernel, options, math.prod(grid)))

    driver.set_active(_Compiler(chip))
    JITFunction.run = compile_only
    try:
        yield launches
    finally:
        JITFunction.run = run


def variants(launches: list[Launch]) -> list[Launch]:
    """The first launch of each compiled kernel."""
    found: dict[tuple[str, str], Launch] = {}
    for launch in launches:
        found.setdefault((launch.name, launch.kernel.hash), launch)
    return list(found.values())
