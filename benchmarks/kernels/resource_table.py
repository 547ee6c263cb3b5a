"""What every kernel takes of sm_80 and sm_90a by the oldest and the newest Triton, as a page.

python -m benchmarks.kernels.resource_table FOLDER > page.md     # FOLDER holds the package triton 3.6.0; the newest is installed
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
BEFORE = ROOT / "benchmarks" / "results" / "kernel-resources_sm90_1894b4e.json"
"""Rows of resources.py by version of Triton, of the plain kernels in bfloat16 at commit 1894b4e, read from machine code by sass.py."""
COLUMNS = ("registers", "stack", "spills", "shared", "tensor_cores", "in_flight", "per_logit")
Row = dict[str, Any]


def measured(folder: str | None) -> tuple[str, list[Row]]:
    """Version and rows of the Triton in a folder, or of the one that is installed."""
    path = os.pathsep.join(filter(None, (folder, str(ROOT), str(ROOT / "kernels"))))
    run = {"env": os.environ | {"PYTHONPATH": path}, "capture_output": True, "text": True, "check": True}
    version = subprocess.run([sys.executable, "-c", "import triton; print(triton.__version__)"], **run).stdout.strip()
    rows = subprocess.run([sys.executable, "-m", "benchmarks.kernels.resources", "--json"], **run).stdout
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


def page(tables: dict[str, list[Row]], before: dict[str, list[Row]]) -> str:
    columns = ("chip", "kernel", "case", *(column.replace("_", " ") for column in COLUMNS))
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    versions = " / ".join(tables)
    return "\n".join([
        f"# {date.today()}, kernel resources, compiled ahead of time without a GPU\n",
        f"triton {versions} (their own ptxas), torch {torch.__version__}, Python {sys.version.split()[0]}. T = 40,960, H = 2560, "
        "V = 151,936; sm_90 is compiled as sm_90a.",
        "Command: `python -m benchmarks.kernels.resource_table FOLDER`, with triton 3.6.0 unzipped in FOLDER.\n",
        f"A cell has two values, triton {versions}, where they differ. `shared`: bytes a block. `in flight`: groups of asynchronous",
        "products that the main loop does not wait for (0: one after the other; sm_80 has no such products). `per logit`: instructions",
        "of a thread per logit beside the product's main loop. `kept`: the forward of `linear_policy_loss`, to the target's logit;",
        "`kept exactly`: to the row's maximum. `tests/kernels/test_resources.py` holds the kernels to it.\n",
        *head,
        *lines(tables.values()),
        "\n## Before: the plain kernels in bfloat16 at commit 1894b4e, read in the same way\n",
        *head,
        *lines(before.values()),
        "",
    ])  # fmt: skip


def main() -> None:
    tables = dict(measured(folder) for folder in (sys.argv[1], None))
    print(page(tables, json.loads(BEFORE.read_text())), end="")


if __name__ == "__main__":
    main()
