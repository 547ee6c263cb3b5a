"""What a compiled kernel takes of its chip and executes, read from its machine code."""

from __future__ import annotations

import functools
import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton

from benchmarks.kernels.ahead import CHIPS, Launch
from benchmarks.kernels.sass import Loops, read_loops

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_AREAS = (("BLOCK_T", "BLOCK_V"), ("ROWS", "TILE"), ("REPEATS", "LANES", "VECTOR"))
"""Constants of the kernels whose product is the logits of a tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one compiled kernel takes: registers a thread, bytes of stack (spills live there) and of shared memory a block.

    The rest is read from NVIDIA's machine code, see `sass.Loops`. `per_logit`: instructions per logit outside of the product's main loop,
    `seldom_per_logit` those that few tiles execute; None where a kernel has no tile of logits.
    """

    kernel: str
    case: str
    chip: str
    warps: int
    registers: int
    stack: int
    spills: int
    shared: int
    tensor_cores: str = "-"
    in_flight: int = 0
    per_step: int = 0
    per_tile: int = 0
    per_logit: float | None = None
    seldom_per_logit: float | None = None


def measure(launch: Launch, case: str, chip: str) -> Resources:
    """Read the compiled machine code: NVIDIA's with the tools that come with Triton, AMD's as it is."""
    kernel = launch.kernel
    named = {"kernel": launch.name, "case": case, "chip": chip, "warps": kernel.metadata.num_warps, "shared": kernel.metadata.shared}
    if CHIPS[chip].target.backend == "hip":
        return Resources(**named, **_of_amd(kernel.asm["amdgcn"]))
    machine = disassembled(kernel.asm["cubin"])
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", machine).groups())
    found = next((name for name in ("HGMMA", "UTCHMMA", "HMMA") if re.search(rf"\b{name}\b", machine)), "-")
    logits = _logits_per_thread(launch)
    loops = Loops() if logits is None and found == "-" else read_loops(machine)
    if logits is not None and not loops.per_step:
        logits *= max(1, loops.exponentials // logits)  # a loop that the compiler has unrolled
    return Resources(
        **named,
        registers=registers,
        stack=stack,
        spills=len(re.findall(r"\b(?:STL|LDL)\b", machine)),
        tensor_cores=found,
        in_flight=loops.in_flight,
        per_step=loops.per_step,
        per_tile=loops.per_tile,
        per_logit=None if logits is None else loops.per_tile / logits,
        seldom_per_logit=None if logits is None else loops.seldom / logits,
    )


@functools.cache
def disassembled(cubin: bytes) -> str:
    """Resource usage and machine code of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        command = [_TOOLS / "cuobjdump", "-res-usage", "-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _of_amd(code: str) -> dict[str, int | str]:
    """Registers, bytes of stack and spilled registers from the metadata of an assembler listing.

    Spilled scalar registers are left out: they go into lanes of a vector register, not into memory.
    """
    registers, stack, spills = (
        int(re.search(rf"\.{name}:\s+(\d+)", code)[1]) for name in ("vgpr_count", "private_segment_fixed_size", "vgpr_spill_count")
    )
    return {"registers": registers, "stack": stack, "spills": spills, "tensor_cores": "MFMA" if "v_mfma" in code else "-"}


def _logits_per_thread(launch: Launch) -> int | None:
    """Logits of a tile that a thread works on."""
    for names in _AREAS:
        if all(name in launch.constants for name in names):
            return max(1, math.prod(launch.constants[name] for name in names) // (32 * launch.kernel.metadata.num_warps))
    return None
