"""Break the source on purpose and count how often the tests notice: `make mutants`, or python scripts/mutants --help.

Every mutant is one small change (sites.py) in a copy of the tree (sandbox.py). It is killed if a test of the mirroring folder fails, or
hangs past its time. Only tests that call the changed function run, the quickest first: a run before the first mutant notes which do. Tests
marked slow are for --slow, which tries those mutants again that have survived. Mutants that no test can tell from the original stand in
equivalents.toml, each with its reason. Results are kept, and the same command goes on from them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox import Run, Sandbox, instrument, preload
from sites import Mutant, mutants_of

HERE = Path(__file__).resolve().parent
PACKAGES = (
    "algorithm",
    "checkpoint",
    "config",
    "data",
    "distributed",
    "kernels",
    "learn",
    "model",
    "recipe",
    "reward",
    "run",
    "sampling",
    "sync",
)
FAST, SLOW = "not slow and not vllm and not gpu", "not vllm and not gpu"
FAST_LIMIT_S, SLOW_LIMIT_S = 60.0, 240.0
"""Most seconds of tests for one mutant; the quickest are taken."""


def files_of(root: Path, package: str) -> list[str]:
    folder = root / ("kernels/polaris_kernels" if package == "kernels" else f"polaris/{package}")
    return [str(path.relative_to(root)) for path in sorted(folder.rglob("*.py"))]


def chosen_mutants(root: Path, packages: list[str], count: int, seed: int) -> dict[str, list[Mutant]]:
    """`count` mutants of each package. Each has a random rank of its own, so that other code leaves the choice alone."""
    found = {}
    for package in packages:
        every = [mutant for file in files_of(root, package) for mutant in mutants_of(file, (root / file).read_bytes())]
        found[package] = sorted(every, key=lambda mutant: hashlib.sha256(f"{seed}{mutant.id}".encode()).digest())[:count]
    return found


def known_equivalents() -> dict[tuple[str, str, str], str]:
    entries = tomllib.loads((HERE / "equivalents.toml").read_text()).get("equivalent", [])
    return {(entry["file"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


class Tests:
    """Which tests call which function, how long they take; recorded once per folder of tests and kind of run."""

    def __init__(self, root: Path, journal: Path, slow: bool) -> None:
        self.root, self.slow = root, slow
        self.folder = journal / ("slow" if slow else "fast")
        self.calls: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}

    def record(self, name: str) -> None:
        """Run tests/`name` on an instrumented copy, unless that was done before."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._run(name)))
        recorded = json.loads(path.read_text())
        self.seconds |= recorded["seconds"]
        for function, tests in recorded["calls"].items():
            self.calls.setdefault(function, set()).update(tests)

    def _run(self, name: str) -> dict[str, Any]:
        print(f"which functions do tests/{name} call?", flush=True)
        sandbox = Sandbox(self.root, self.folder / "record")
        hits = sandbox.folder / "hits.txt"
        hits.touch()
        instrument(sandbox, [file for package in PACKAGES for file in files_of(self.root, package)], hits)
        run = sandbox.start([f"tests/{name}", "-m", SLOW if self.slow else FAST])
        while not run.ended():
            time.sleep(0.2)
        run.clean()
        results = run.result()
        failed = [test for test, result in results.items() if result["outcome"] == "failed"]
        if failed:
            print(f"left out, since they fail on the instrumented copy: {', '.join(failed)}", flush=True)
        seconds = {test: float(result["seconds"]) for test, result in results.items() if result["outcome"] == "passed"}
        calls: dict[str, set[str]] = {}
        for line in hits.read_text().splitlines():
            function, _, during = line.partition("\t")
            test, _, phase = during.rpartition(" ")
            # What a fixture calls belongs to every test of the file: those of the module's scope are set up but once.
            of_file = {other for other in seconds if test and other.startswith(test.split("::")[0] + "::")}
            found = {test} if phase == "(call)" else of_file
            calls.setdefault(function, set()).update(found & seconds.keys())
        return {"seconds": seconds, "calls": {function: sorted(tests) for function, tests in calls.items()}}

    def of(self, mutant: Mutant, package: str) -> dict[str, float]:
        """Tests for a mutant, with their seconds."""
        names = {test for test in self.seconds if test.startswith(f"tests/{package}/")}
        if mutant.function:  # else a constant, a default or a dataclass
            names &= self.calls.get(f"{mutant.file}:{mutant.function}", set())
        found, total = {}, 0.0
        for test in sorted(names, key=lambda name: self.seconds[name]):
            total += self.seconds[test]
            if total > (SLOW_LIMIT_S if self.slow else FAST_LIMIT_S):
                break
            found[test] = self.seconds[test]
        return found


def judge(mutant: Mutant, sandbox: Sandbox, tests: dict[str, float]) -> dict[str, Any]:
    """How a mutant fared: {"killed", "by", "seconds"}."""
    if not tests:
        return {"killed": False, "by": "no test calls it", "seconds": 0.0}
    path = sandbox.tree / mutant.file
    path.write_bytes(mutant.apply((sandbox.root / mutant.file).read_bytes()))
    run = sandbox.start(sorted({test.split("::")[0] for test in tests}), tests)
    try:
        by = _wait(run, 60 + 5 * sum(tests.values()))
    finally:
        run.clean()
        sandbox.restore(mutant.file)
    return {"killed": by != "", "by": by, "seconds": round(time.monotonic() - run.began, 1)}


def _wait(run: Run, limit: float) -> str:
    """What killed the mutant, or nothing."""
    while not run.ended():
        if time.monotonic() - run.began > limit:
            os.killpg(run.process, signal.SIGKILL)
            os.waitpid(run.process, 0)
            return f"no end after {limit:.0f} s"
        time.sleep(0.05)
    results = run.result()
    if not results:
        return "pytest ends"
    return next((test for test, result in results.items() if result["outcome"] == "failed"), "")


def run_all(root: Path, pending: list[tuple[str, Mutant]], tests: Tests, journal: Path, jobs: int) -> None:
    """Judge the mutants in `jobs` processes, each with a copy of its own, and add every result to the journal at once."""
    workers = []
    for job in range(jobs):
        worker = os.fork()
        if worker:
            workers.append(worker)
            continue
        status = 1
        try:
            sandbox = Sandbox(root, journal / f"job-{job}")
            for package, mutant in pending[job::jobs]:
                result = judge(mutant, sandbox, tests.of(mutant, package))
                line = {"id": mutant.id, "file": mutant.file, "line": mutant.line, **result, "slow": tests.slow}
                with (journal / "results.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(
                    f"{'killed  ' if result['killed'] else 'SURVIVED'} {result['seconds']:6.1f} s  {mutant.file}:{mutant.line}", flush=True
                )
            status = 0
        finally:
            os._exit(status)
    if any(os.waitpid(worker, 0)[1] for worker in workers):
        raise SystemExit("a worker failed; see above")


def journal_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The newest result of every mutant."""
    path = folder / "results.jsonl"
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())} if path.is_file() else {}


def undecided(chosen: dict[str, list[Mutant]], known: dict[str, dict[str, Any]], slow: bool) -> Iterator[tuple[str, Mutant]]:
    equivalents = known_equivalents()
    for package, mutants in chosen.items():
        for mutant in mutants:
            result = known.get(mutant.id)
            if (mutant.file, mutant.before, mutant.after) in equivalents:
                continue
            if result is None or (slow and not result["killed"] and not result["slow"]):
                yield package, mutant


def report(chosen: dict[str, list[Mutant]], known: dict[str, dict[str, Any]]) -> None:
    equivalents = known_equivalents()
    print(f"{'package':14}{'mutants':>8}{'equal':>7}{'fast':>6}{'all':>6}{'rate':>7}")
    totals = [0, 0, 0, 0]
    survivors = []
    for package, mutants in chosen.items():
        equal = [m for m in mutants if (m.file, m.before, m.after) in equivalents]
        judged = [(m, known[m.id]) for m in mutants if m.id in known and m not in equal]
        fast = sum(result["killed"] and not result["slow"] for _, result in judged)
        every = sum(result["killed"] for _, result in judged)
        survivors += [mutant for mutant, result in judged if not result["killed"]]
        row = (len(judged) + len(equal), len(equal), fast, every)
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        print(_row(package, *row))
    print(_row("all", *totals))
    for mutant in survivors:
        print(f"\n{mutant.file}:{mutant.line} {mutant.kind} ({known[mutant.id]['by'] or 'survived'})")
        print("\n".join([f"- {line}" for line in mutant.before.splitlines()] + [f"+ {line}" for line in mutant.after.splitlines()]))


def _row(name: str, mutants: int, equal: int, fast: int, every: int) -> str:
    return f"{name:14}{mutants:8}{equal:7}{fast:6}{every:6}{every / max(1, mutants - equal):7.0%}"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--package", action="append", choices=PACKAGES, help="one package (may be repeated); default: all")
    parser.add_argument("--count", type=int, default=14, help="mutants of each package (14)")
    parser.add_argument("--seed", type=int, default=15, help="which ones (15)")
    parser.add_argument("--slow", action="store_true", help="try what has survived on slow tests, too")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    parser.add_argument("--root", type=Path, default=HERE.parent.parent, help="the tree to break a copy of; default: this one")
    parser.add_argument("--journal", type=Path, default=HERE.parent.parent / "runs" / "mutants", help="folder of results (runs/mutants)")
    parser.add_argument("--report", action="store_true", help="print the results so far and run nothing")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    root, packages, journal = options.root.resolve(), options.package or list(PACKAGES), options.journal.resolve()
    chosen = chosen_mutants(root, packages, options.count, options.seed)
    if not options.report:
        sys.path.remove(str(HERE))  # its names are common ones
        preload()
        tests = Tests(root, journal, options.slow)
        pending = list(undecided(chosen, journal_of(journal), options.slow))
        for name in sorted({package for package, _ in pending}):
            tests.record(name)
        run_all(root, pending, tests, journal, options.jobs)
    report(chosen, journal_of(journal))


if __name__ == "__main__":
    main()
