"""A copy of the tree to break, and test runs in it: forked from this process, which has imported the heavy libraries once."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

LIBRARIES = (
    "datasets",
    "hypothesis",
    "math_verify",
    "torch.distributed.checkpoint",
    "transformers.models.qwen3.modeling_qwen3",
    "triton.experimental.gluon",
)
HITS = """
import contextlib, os
_SEEN = set()
def hit(key):
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    if (key, test) not in _SEEN:
        _SEEN.add((key, test))
        with contextlib.suppress(OSError), open({file!r}, "a") as file:
            file.write(key + "\\t" + test + "\\n")
"""


def preload() -> None:
    """Import what most tests need, but nothing of Polaris."""
    os.environ["TRITON_INTERPRET"] = "1"  # as in conftest.py
    for name in LIBRARIES:
        importlib.import_module(name)
    del os.environ["TRITON_INTERPRET"]


class Sandbox:
    """A copy of a tree's files, with `shared` beside it as beside the original. `tree` may be changed; `restore` undoes it."""

    def __init__(self, root: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.root, self.folder, self.tree = root, folder, folder / "tree"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0"):
            if name and (root / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.tree / name)
        shared = root.parent / "shared"
        if shared.is_dir():
            (folder / "shared").symlink_to(shared)
        cache = Path(os.environ.get("POLARIS_CACHE") or Path.home() / ".cache" / "polaris")
        if cache.is_dir():  # a mutant must not leave its embedded model to others
            shutil.copytree(cache, folder / "cache")

    def restore(self, file: str) -> None:
        shutil.copy2(self.root / file, self.tree / file)

    def start(self, arguments: list[str], tests: dict[str, float] | None = None) -> Run:
        """Begin pytest; `tests`, if given, are the only ones to run, and their usual seconds."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        mark = f"{os.getpid()}-{time.monotonic_ns()}"
        process = os.fork()
        if not process:
            _child(self, mark, report, arguments, tests)
        return Run(process=process, mark=mark, report=report, began=time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A test run under way."""

    process: int
    mark: str
    report: Path
    began: float

    def ended(self) -> bool:
        return bool(os.waitpid(self.process, os.WNOHANG)[0])

    def result(self) -> dict[str, dict[str, float | str]]:
        """{test: {"seconds", "outcome"}} of what has run; empty where the process died before."""
        return json.loads(self.report.read_text()) if self.report.is_file() else {}

    def clean(self) -> None:
        """End every process of this run, also those with a session of their own."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"POLARIS_MUTANT={self.mark}".encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue


def _child(sandbox: Sandbox, mark: str, report: Path, arguments: list[str], tests: dict[str, float] | None) -> None:
    os.setsid()
    for name in [name for name in sys.modules if name.split(".")[0] in ("polaris", "polaris_kernels")]:
        del sys.modules[name]  # torch has imported the installed one, for its entry point `torchrun.handlers`
    tree = sandbox.tree
    os.chdir(tree)
    sys.path[:0] = [str(tree), str(tree / "kernels")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(sys.path[:2]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "POLARIS_CACHE": str(sandbox.folder / "cache"),
        "POLARIS_MUTANT": mark,
    }
    sys.dont_write_bytecode = True
    log = os.open(sandbox.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 70
    try:
        status = int(pytest.main(["-q", "-x" if tests is not None else "-q", *arguments], plugins=[_Reporter(report, tests)]))
    finally:
        os._exit(status)


class _Reporter:
    """Keeps only the tests asked for, the quickest file first, and writes down how each ended."""

    def __init__(self, report: Path, tests: dict[str, float] | None) -> None:
        self.report, self.tests = report, tests
        self.results: dict[str, dict[str, float | str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.tests is not None:
            files: dict[str, float] = {}
            for test, seconds in self.tests.items():
                files[test.split("::")[0]] = files.get(test.split("::")[0], 0.0) + seconds
            chosen = [item for item in items if item.nodeid in self.tests]
            items[:] = sorted(chosen, key=lambda item: (files[item.nodeid.split("::")[0]], item.nodeid.split("::")[0]))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(report.nodeid, "failed", 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._add(report.nodeid, report.outcome, report.duration)

    def _add(self, test: str, outcome: str, seconds: float) -> None:
        known = self.results.setdefault(test, {"seconds": 0.0, "outcome": "passed"})
        known["seconds"] = float(known["seconds"]) + seconds
        if outcome != "passed":
            known["outcome"] = outcome
            if outcome == "failed":
                self.write()

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        self.report.write_text(json.dumps(self.results))


def instrument(sandbox: Sandbox, files: list[str], hits: Path) -> None:
    """Make every function of the files tell which test has called it, in whatever process."""
    (sandbox.tree / "polaris_hits.py").write_text(HITS.format(file=str(hits)))
    for file in files:
        path = sandbox.tree / file
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not any("jit" in ast.unparse(d) for d in node.decorator_list):
                node.body.insert(1 if ast.get_docstring(node) else 0, ast.parse(f"polaris_hits.hit('{file}:{node.lineno}')").body[0])
        place = 1 if ast.get_docstring(tree) else 0
        while place < len(tree.body) and isinstance(tree.body[place], ast.ImportFrom) and tree.body[place].module == "__future__":
            place += 1
        tree.body.insert(place, ast.parse("import polaris_hits").body[0])
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
