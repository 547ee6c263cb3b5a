"""Compile every kernel as it is launched at real shapes for sm_80 and sm_90a, with no GPU, and print what it takes of the chip.

    python benchmarks/kernels/resources.py            # a table
    python benchmarks/kernels/resources.py --json     # for tests

Launches are recorded on meta tensors, so the compiled code is that of the real call: types, alignment, constants and tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import tiled as linear_logprob
from polaris_kernels.linear_policy_loss import tiled as linear_policy_loss
from polaris_kernels.logprob_from_logits import tiled as logprob_from_logits
from polaris_kernels.policy_loss import tiled as policy_loss
from polaris_kernels.policy_loss.settings import Kind, PolicyLossSettings, TokenCorrection
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import Tiles, architecture_tiles
from polaris_kernels.token_batch import TokenBatch

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one compiled kernel takes: registers a thread, bytes of stack (spills live there) and of shared memory a block.

    `in_flight`: groups of asynchronous products that the main loop does not wait for (sm_90a); 0 means one after the other.
    """

    kernel: str
    case: str
    architecture: int
    warps: int
    registers: int
    stack: int
    spills: int
    shared: int
    tensor_cores: str
    in_flight: int


class _Compiler(DriverBase):
    """A driver that names a target and owns no device."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture  # Triton remembers the target of a device: each needs a number of its own

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
def recorded(architecture: int) -> Iterator[dict[tuple[str, str], Any]]:
    """Every launch inside compiles for the architecture and runs nothing; yields the compiled kernels by name and hash."""
    launch, kernels = JITFunction.run, {}

    def compile_only(function: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        operation = function.__module__.split(".")[-2]
        kernel = launch(function, *arguments, grid=grid, warmup=True, **options)
        kernels[f"{operation}.{function.__name__}", kernel.hash] = kernel

    driver.set_active(_Compiler(architecture))
    JITFunction.run = compile_only
    try:
        yield kernels
    finally:
        JITFunction.run = launch


def measure(kernel: Any, name: str, case: str, architecture: int) -> Resources:
    """Read the compiled machine code with the tools that come with Triton."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        command = [_TOOLS / "cuobjdump", "-res-usage", "-sass", file.name]
        machine = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", machine).groups())
    found = [name for name in ("HGMMA", "HMMA") if re.search(rf"\b{name}\.", machine)]
    waits = re.findall(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x(\d+)", machine)
    return Resources(
        kernel=name,
        case=case,
        architecture=architecture,
        warps=kernel.metadata.num_warps,
        registers=registers,
        stack=stack,
        spills=len(re.findall(r"\b(?:STL|LDL)\b", machine)),
        shared=kernel.metadata.shared,
        tensor_cores=found[0] if found else "-",
        in_flight=max(map(int, waits), default=0),
    )


def launches(architecture: int) -> Iterator[tuple[str, dict[tuple[str, str], Any]]]:
    """The real calls by name of the case, with what they compiled."""
    length, size, vocabulary = 40_960, 2560, 151_936
    # Autocast, which a product turns off, knows no meta tensors.
    linear_logprob.product = linear_policy_loss.product = lambda left, right: left.new_empty(len(left), right.shape[1])
    values = torch.empty(length, device="meta")
    targets = torch.empty(length, dtype=torch.long, device="meta")
    floats = {f.name: values for f in fields(Rows)}
    rows = Rows(**floats | {"targets": targets})
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        hidden = torch.empty(length, size, dtype=dtype, device="meta")
        plain = Head(weight=torch.empty(vocabulary, size, dtype=dtype, device="meta"))
        bias = torch.empty(vocabulary, dtype=dtype, device="meta")
        dressed = Head(weight=plain.weight, bias=bias, softcap=30.0, logits_dtype=torch.bfloat16)
        for name, head in (("plain", plain), ("bias, softcap, rounded", dressed)):
            tiles = architecture_tiles(architecture // 10, head)
            with recorded(architecture) as kernels:
                linear_logprob.tiled_forward(hidden, head, targets, values, -100, tiles)
                linear_logprob.tiled_backward(hidden, head, rows, True, tiles)
            yield f"{str(dtype)[6:]}, {name}", kernels
            work = _chunk(hidden, head, tiles)
            with recorded(architecture) as kernels:
                if dtype != torch.float16 and not head.softcap:
                    linear_policy_loss._learn_by_rows(work, work.call.targets)
                linear_policy_loss._learn_exactly(work, work.call.targets)
            yield f"{str(dtype)[6:]}, {name}, kept", kernels
        logits = torch.empty(length, vocabulary, dtype=dtype, device="meta")
        with recorded(architecture) as kernels:
            logprob_from_logits.tiled_forward(logits, targets, values, -100)
            logprob_from_logits.tiled_backward(logits, logits, rows, -100)
        yield str(dtype)[6:], kernels
    batch = TokenBatch(
        behaviour_logprob=values,
        advantage=values,
        mask=torch.empty(length, dtype=torch.bool, device="meta"),
        proximal_logprob=values,
        sequence_lengths=torch.empty(64, dtype=torch.long, device="meta"),
    )
    for kind in get_args(Kind):
        for correction in get_args(TokenCorrection):
            settings = PolicyLossSettings(kind=kind, correction=correction)
            with recorded(architecture) as kernels:
                policy_loss.tiled_forward(values, batch, settings)
            yield f"{kind}, {correction}", kernels


def _chunk(hidden: torch.Tensor, head: Head, tiles: Tiles) -> linear_policy_loss._Work:
    """What `linear_policy_loss` knows of its rows in the forward, all of one chunk."""
    rows = linear_policy_loss.chunk_rows(tiles, hidden.shape[1], len(head.weight) * hidden.element_size())
    values = torch.empty(rows, device="meta")
    call = SimpleNamespace(targets=values.long(), temperature=values, slope=lambda logprob, rows: torch.empty_like(logprob))
    gradients = linear_policy_loss._Gradients(
        hidden=torch.empty_like(hidden), weight=torch.empty_like(head.weight), bias=None, scale=None, hidden_scale=None
    )
    return linear_policy_loss._Work(
        hidden=hidden, head=head, weight=head.weight, tiles=tiles, call=call, logprob=values, entropy=values, gradients=gradients
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    found = [
        measure(kernel, name, case, architecture)
        for architecture in (80, 90)
        for case, kernels in launches(architecture)
        for (name, _), kernel in kernels.items()
    ]
    if as_json:
        print(json.dumps([asdict(row) for row in found]))
        return
    heads = ("kernel", "case", "sm", "warps", "registers", "stack", "spills", "shared KiB", "tensor cores", "in flight")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in found:
        cells = (
            row.kernel,
            row.case,
            row.architecture,
            row.warps,
            row.registers,
            row.stack,
            row.spills,
            row.shared >> 10,
            row.tensor_cores,
            row.in_flight,
        )
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
