"""Everything that the grader claims, measured: `python benchmarks/grader/run.py`, about four minutes on two idle cores.

Writes `benchmarks/results/grader_HARDWARE_DATE.{md,json}`. Needs the real sets in `../shared/data`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import cases
import hostile
import mutations
import overlap
import selves
import throughput
from golds import ROOT

from polaris.reward.grade import GRADER_VERSION

PARTS = (cases, selves, mutations, hostile, throughput, overlap)
PACKAGES = ("math-verify", "latex2sympy2-extended", "sympy", "antlr4-python3-runtime")


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    head = {
        "date": date.today().isoformat(),
        "hardware": f"{_processor()}, {cores} shared cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]),
        "grader": GRADER_VERSION,
        "commit": _commit(),
        "command": "python benchmarks/grader/run.py",
    }
    texts, data = [], {}
    for number, part in enumerate(PARTS, 1):
        start = time.monotonic()
        found = part.measure()
        texts.append(f"## {number}. {found.title}\n\n{found.text}")
        data[part.__name__] = found.data
        print(f"{found.title}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    lines = [
        f"# The grader, {head['date']}, {head['hardware']}",
        f"Grader version {head['grader']}, commit {head['commit']}; {head['versions']}.",
    ]
    lines[1] += f"\nCommand: `{head['command']}`."
    target = ROOT / "benchmarks" / "results" / f"grader_cpu-{cores}-cores_{head['date']}"
    target.with_suffix(".md").write_text("\n\n".join([*lines, *texts]) + "\n", encoding="utf-8")
    target.with_suffix(".json").write_text(json.dumps(head | data, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {target.relative_to(ROOT)}.md and .json")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "polaris", "benchmarks/grader")
    return git("rev-parse", "--short=10", "HEAD") + (" with uncommitted changes" if changed else "")


if __name__ == "__main__":
    main()
