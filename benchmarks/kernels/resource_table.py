"""What every kernel takes of a chip by the oldest and the newest Triton, as a page.

python -m benchmarks.kernels.resource_table FOLDER [CHIP ...] > page.md     # FOLDER holds the package triton 3.6.0; the newest is installed

Without chips it is a page of sm_80 and sm_90a, with the kernels as they were before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernels.ahead import CHIPS

ROOT = Path(__file__).resolve().parents[2]
BEFORE = ROOT / "benchmarks" / "results" / "kernel-resources_sm90_1894b4e.json"
"""Rows of resources.py by version of Triton, of the plain kernels in bfloat16 at commit 1894b4e, read from machine code by sass.py."""
COLUMNS = ("registers", "stack", "spills", "shared", "tensor_cores", "in_flight", "per_logit")
Row = dict[str, Any]


def measured(folder: str | None, chips: Sequence[str]) -> tuple[str, list[Row]]:
    """Version and rows of the Triton in a folder, or of the one that is installed."""
    path = os.pathsep.join(filter(None, (folder, str(ROOT), str(ROOT / "kernels"))))
    run = {"env": os.environ | {"PYTHONPATH": path}, "capture_output": True, "text": True, "check": True}
    version = subprocess.run([sys.executable, "-c", "import triton; print(triton.__version__)"], **run).stdout.strip()
    rows = subprocess.run([sys.executable, "-m", "benchmarks.kernels.resources", "--json", "--on", *chips], **run).stdout
    return version, json.loads(rows)


def lines(tables: Iterable[list[Row]]) -> list[str]:
    """A line per kernel and cells, with all cases that have them; each cell by every Triton, once where they agree."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for rows in tables:
        for row in rows:
            found.setdefault((row["chip"], row["kernel"], row["case"]), []).append(row)
    cases: dict[tuple[str, str, str], list[str]] = {}
    for (chip, kernel, case), rows in found.items():
        cells = " | ".join(" / ".join(dict.fromkeys(cell(row[column]) for row in rows)) for column in COLUMNS)
        cases.setdefault((chip, kernel, cells), []).append(case)
    return [f"| {chip} | {kernel} | {'; '.join(names)} | {cells} |" for (chip, kernel, cells), names in cases.items()]


def cell(value: float | str | None) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def page(tables: dict[str, list[Row]], chips: Sequence[str], past: dict[str, list[Row]]) -> str:
    """`past`: rows of an earlier commit, by version of Triton, or none."""
    columns = ("chip", "kernel", "case", *(column.replace("_", " ") for column in COLUMNS))
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    versions, command = " / ".join(tables), " ".join(["python -m benchmarks.kernels.resource_table FOLDER", *([] if past else chips)])
    most = ", ".join(f"{chip} {CHIPS[chip].shared_memory:,}" for chip in chips)
    before = ["\n## Before: the plain kernels in bfloat16 at commit 1894b4e, read in the same way\n", *head, *lines(past.values())]
    return "\n".join([
        f"# {date.today()}, kernel resources, compiled ahead of time without a GPU\n",
        f"triton {versions} (their own ptxas), torch {torch.__version__}, Python {sys.version.split()[0]}. T = 40,960, H = 2560, "
        "V = 151,936; sm_90 is compiled as sm_90a, sm_100 as sm_100a.",
        f"Command: `{command}`, with triton 3.6.0 unzipped in FOLDER.\n",
        f"A cell has two values, triton {versions}, where they differ. `shared`: bytes a block, of which there are {most}.",
        "`in flight`: groups of asynchronous products that the main loop of sm_90 does not wait for (0: one after the other; other chips",
        "have no such products). `per logit`: instructions of a thread per logit beside the product's main loop. `kept`: the forward of",
        "`linear_policy_loss`, to the target's logit; `kept exactly`: to the row's maximum. `tests/kernels/test_resources.py` holds the",
        "kernels to it.\n",
        *head,
        *lines(tables.values()),
        *(before if past else ()),
        "",
    ])  # fmt: skip


def main() -> None:
    folder, *chips = sys.argv[1:]
    past = {} if chips else json.loads(BEFORE.read_text())
    chips = chips or ["sm_80", "sm_90"]
    print(page(dict(measured(where, chips) for where in (folder, None)), chips, past), end="")


if __name__ == "__main__":
    main()
