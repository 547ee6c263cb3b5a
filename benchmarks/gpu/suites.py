"""The tests that matter on a GPU: each operation's own first, then those of model, trainer and the rest.

Most of their time goes into compiling on one core, so all begin at once where there are cores for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.gpu.figures import Call, Figure, suite_name
from benchmarks.gpu.journal import Line
from benchmarks.gpu.outcomes import SHARED
from benchmarks.gpu.program import ROOT, end_all
from benchmarks.kernels.contests import OPERATIONS
from benchmarks.kernels.peers import Unavailable

ON_THE_GPU = {"gpu tests of the trainer": ("tests", "-m", "gpu", "--ignore=tests/kernels", "--continue-on-collection-errors")}
ON_ITS_CPU = {
    "tests of the model": ("tests/model",),
    "tests of packing and updates": ("tests/learn/test_packing.py", "tests/learn/test_optimizer.py", "tests/algorithm"),
    "tests of plain torch": ("tests/kernels/test_linear_logprob.py",),
    "tests of kernels in the trainer": ("tests/kernels/test_in_the_trainer.py", "tests/kernels/test_within_torch.py"),
    "tests of gradients": ("tests/learn/test_curated_gradients.py", "tests/distributed/test_same_gradients.py"),
    "tests of the compiled kernels": ("tests/kernels/test_resources.py",),
}
"""With the machine's software, but the GPU hidden: several ranks cannot share one."""
FLOAT16 = "tests/kernels/test_float16_range.py"
"""Of both operations that multiply by the head."""
_ENOUGH_CORES = 8


def figures(call: Call) -> Iterator[Figure]:
    commands = {suite_name(operation): command(operation, call=call) for operation in OPERATIONS}
    for name, selection in (ON_THE_GPU | ON_ITS_CPU).items():
        commands[name] = command("", selection, call)
        if name in ON_ITS_CPU:
            commands[name]["env"] |= {"CUDA_VISIBLE_DEVICES": ""}
    return run_suites(commands, call)


def run_suites(commands: Mapping[str, dict[str, Any]], call: Call) -> Iterator[Figure]:
    """A figure for each suite that has no verdict yet; the first starts them all if there are cores for it, else each its own.

    One that runs already is waited for as long as there is time; what has not ended with the last figure is ended.
    """
    ended = {line["name"] for line in call.journal.lines()}
    wanted = [name for name in commands if name not in ended]
    running: dict[str, subprocess.Popen[bytes]] = {}

    def run(name: str) -> Iterator[Line]:
        for other in wanted if (os.cpu_count() or 1) >= _ENOUGH_CORES else [name]:
            if other not in running:
                running[other] = subprocess.Popen(**commands[other])
        try:
            status = running[name].wait(max(0.0, call.left()))
        except subprocess.TimeoutExpired:
            raise Unavailable("out of time: the tests have not ended") from None
        if status == 5:
            raise Unavailable("pytest found no test")
        yield Line(name=name, status="ok" if status == 0 else "failed", reason="" if status == 0 else f"pytest ended with status {status}")

    try:
        for name in wanted:
            yield Figure(name=name, seconds=100, least=1 if name in running else 60, run=partial(run, name))
    finally:
        for suite in running.values():
            end_all(suite)


def command(operation: str, selection: Sequence[str] = (), call: Call | None = None) -> dict[str, Any]:
    """Arguments of `subprocess.Popen`: the selection, or what runs an operation's kernels: its own files and its share of the common ones.

    With a call every file's outcome goes to its results.jsonl as soon as the file is done, and a red test at once.
    """
    files = (str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels").glob(f"test_{operation}*.py"))
    both = {FLOAT16} if operation in ("linear_logprob", "linear_policy_loss") else set()
    own = sorted({*files, *both} - set(ON_ITS_CPU["tests of plain torch"]))
    environment = {"OMP_NUM_THREADS": "1", "OPERATION": operation}
    if call is not None:
        environment |= {"OUTCOMES": str(call.folder), "OUTCOMES_PART": call.journal.part, "AT_MOST": "2" if call.small else ""}
    arguments = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "benchmarks.gpu.outcomes", *(selection or [*own, *SHARED])]
    return {"args": arguments, "cwd": ROOT, "env": os.environ | environment}
