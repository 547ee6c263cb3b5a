"""What the machine lacks, from the kit that travelled with the call."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.gpu.program import ROOT
from benchmarks.kernels.peers import Unavailable


def figures(call: Call) -> Iterator[Figure]:
    yield Figure(name="unpack", seconds=120, run=unpack)


def unpack() -> Iterator[Line]:
    if not (ROOT / ".kit" / "manifest.json").is_file():
        raise Unavailable("no kit has travelled; carry what scripts/gpu_kit.sh names")
    began = time.perf_counter()
    subprocess.run(["bash", "scripts/gpu_unpack.sh"], cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, check=True)
    yield Line(name="unpack", values={"s": time.perf_counter() - began})
