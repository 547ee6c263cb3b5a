"""What Nsight Compute says of a kernel alone, where it is installed."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.gpu.figures import Call
from benchmarks.gpu.journal import Line
from benchmarks.gpu.program import ROOT
from benchmarks.kernels.peers import Unavailable

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "WarpStateStats")
PROFILED = {"forward": "forward_kernel", "gradient of the logits": "gradient_kernel"}
"""Kernels of benchmarks.kernels.variants, and the functions in which their time goes."""


def profile(name: str, call: Call) -> Iterator[Line]:
    """What Nsight Compute says of the kernel's second run at 8,192 rows."""
    if (profiler := shutil.which("ncu")) is None:
        raise Unavailable("there is no ncu")
    sections = [word for section in SECTIONS for word in ("--section", section)]
    selection = ["--kernel-name", PROFILED[name], "--launch-skip", "1", "--launch-count", "1"]
    program = [sys.executable, "-m", "benchmarks.kernels.variants", "run", name, "8192"]
    asked = [profiler, "--csv", *sections, *selection, *program]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, min(call.left(), 60)))
    table = told.stdout[told.stdout.find('"ID"') :] if '"ID"' in told.stdout else ""
    rows = [row for row in csv.DictReader(table.splitlines()) if row.get("Metric Name")]
    if not rows:
        raise Unavailable(f"ncu told nothing: {(told.stderr or told.stdout).strip()[-200:]}")
    yield Line(
        name=f"profile of {name}", values={f"{row['Metric Name']} [{row['Metric Unit']}]": _number(row["Metric Value"]) for row in rows}
    )


def _number(word: str) -> float | str:
    plain = word.replace(",", "")
    return float(plain) if plain.replace(".", "", 1).isdigit() else word
