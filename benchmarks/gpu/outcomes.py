"""A pytest plugin: what each test file came to, as a line of results.jsonl as soon as the file is done; a red test has its own at once.

`OUTCOMES` and `OUTCOMES_PART` name the folder and the part. `OPERATION` keeps, of the files that all operations share, its own tests;
`AT_MOST` keeps that many tests of each file.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.gpu.journal import Journal, Line

SHARED = ("tests/kernels/test_on_gpu.py", "tests/kernels/test_public_calls_on_kernels.py")
WORDS = {
    "linear_policy_loss": ("linear_policy_loss", "three_products", "fused"),
    "logprob_from_logits": ("logits",),
    "policy_loss": ("policy_loss", "loss_of_logprobs"),
}
"""What the names of an operation's tests in shared files hold; the first that fits owns the test, and `linear_logprob` all others."""


def owner(test: str) -> str:
    return next((operation for operation, words in WORDS.items() if any(word in test for word in words)), "linear_logprob")


@pytest.hookimpl(trylast=True)  # after -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if operation := os.environ.get("OPERATION"):
        items[:] = [item for item in items if _file(item.nodeid) not in SHARED or owner(item.name) == operation]
    if most := os.environ.get("AT_MOST"):
        seen: Counter[str] = Counter()
        items[:] = [item for item in items if seen.update([_file(item.nodeid)]) or seen[_file(item.nodeid)] <= int(most)]


class Outcomes:
    """Counts a file's outcomes and tells them when another file begins."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._file, self._counts, self._seconds, self._red = journal, "", Counter(), 0.0, []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (file := _file(report.nodeid)) != self._file:
            self._tell()
            self._file = file
        self._seconds += report.duration
        if report.when == "call" or report.outcome != "passed":
            self._counts[report.outcome] += 1
        if report.failed:
            crash, test = getattr(report.longrepr, "reprcrash", None), report.nodeid.partition("::")[2]
            reason = " ".join(crash.message.split())[:500] if crash else report.when
            self._journal.append(Line(name=report.nodeid, status="failed", reason=reason))
            self._red.append(f"{test}: {reason[:100]}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._journal.append(Line(name=report.nodeid, status="failed", reason=str(report.longrepr).strip().splitlines()[-1][:300]))

    def pytest_sessionfinish(self) -> None:
        self._tell()

    def _tell(self) -> None:
        if self._file:
            values = {**self._counts, "s": round(self._seconds, 1)}
            status = "failed" if self._red else "ok"
            name = " ".join(filter(None, (self._file, os.environ.get("OPERATION"))))
            self._journal.append(Line(name=name, status=status, values=values, reason="; ".join(self._red)))
        self._counts, self._seconds, self._red = Counter(), 0.0, []


def pytest_configure(config: pytest.Config) -> None:
    if folder := os.environ.get("OUTCOMES"):
        config.pluginmanager.register(Outcomes(Journal(Path(folder), os.environ["OUTCOMES_PART"])))


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
