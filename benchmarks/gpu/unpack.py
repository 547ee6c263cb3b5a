"""What the machine lacks, from the kit that travelled with the call."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.gpu.program import ROOT

SCRIPT = ROOT / "scripts" / "gpu_unpack.sh"


def figures(call: Call) -> Iterator[Figure]:
    yield Figure(name="unpack", seconds=120, run=unpack)


def unpack() -> Iterator[Line]:
    began = time.perf_counter()
    subprocess.run(["bash", str(SCRIPT)], cwd=ROOT, check=True)
    yield Line(name="unpack", values={"s": time.perf_counter() - began})
