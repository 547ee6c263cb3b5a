"""The tests that matter on a GPU: each operation's own first, then those of model, trainer and the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.gpu.figures import Call, Figure, suite_name
from benchmarks.gpu.journal import Line
from benchmarks.gpu.outcomes import SHARED
from benchmarks.gpu.program import ROOT
from benchmarks.kernels.contests import OPERATIONS
from benchmarks.kernels.peers import Unavailable

ON_THE_GPU = {"gpu tests of the trainer": ("tests", "-m", "gpu", "--ignore=tests/kernels", "--continue-on-collection-errors")}
ON_ITS_CPU = {
    "tests of the model": ("tests/model",),
    "tests of packing and updates": ("tests/trainer/test_packing.py", "tests/trainer/test_optimizer.py", "tests/algorithm"),
    "tests of kernels in the trainer": ("tests/kernels/test_in_the_trainer.py", "tests/kernels/test_within_torch.py"),
    "tests of gradients": ("tests/trainer/test_curated_gradients.py", "tests/distributed/test_same_gradients.py"),
    "tests of the compiled kernels": ("tests/kernels/test_resources.py",),
}
"""With the machine's software, but the GPU hidden: several ranks cannot share one."""


def figures(call: Call) -> Iterator[Figure]:
    for operation in OPERATIONS:
        yield of_operation(operation, call)
    for name, selection in (ON_THE_GPU | ON_ITS_CPU).items():
        arguments = command("", selection, call)
        if name in ON_ITS_CPU:
            arguments["env"] |= {"CUDA_VISIBLE_DEVICES": ""}
        yield Figure(name=name, seconds=60, run=partial(run, name, arguments))


def of_operation(operation: str, call: Call) -> Figure:
    name = suite_name(operation)
    return Figure(name=name, seconds=60, run=partial(run, name, command(operation, call=call)))


def command(operation: str, selection: Sequence[str] = (), call: Call | None = None) -> dict[str, Any]:
    """Arguments of `subprocess.run`: the selection, or an operation's own files and its share of those that all operations share.

    With a call every file's outcome goes to its results.jsonl as soon as the file is done.
    """
    own = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels").glob(f"test_{operation}*.py"))
    environment = {"OMP_NUM_THREADS": "1", "OPERATION": operation}
    if call is not None:
        environment |= {"OUTCOMES": str(call.folder), "OUTCOMES_PART": call.journal.part, "AT_MOST": "2" if call.small else ""}
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.outcomes", *(selection or [*own, *SHARED])]
    return {"args": arguments, "cwd": ROOT, "env": os.environ | environment}


def run(name: str, arguments: dict[str, Any]) -> Iterator[Line]:
    """The verdict on a selection; its files' outcomes are there already."""
    status = subprocess.run(**arguments).returncode
    if status == 5:
        raise Unavailable("pytest found no test")
    yield Line(name=name, status="ok" if status == 0 else "failed", reason="" if status == 0 else f"pytest ended with status {status}")
