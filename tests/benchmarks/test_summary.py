"""results.jsonl of several calls -> one result per part, the later figure in the place of the earlier."""

from __future__ import annotations

import json

from benchmarks.gpu.journal import Journal, Line
from benchmarks.gpu.kernels import told
from benchmarks.kernels.contests import contests
from benchmarks.summary import markdown, readme_rows, results_of_calls

MACHINE = Line(name="machine", values={"date": "2026-11-28", "processor": "a processor, 16 cores", "torch": "2.11.0"})


def write(folder, monkeypatch, *lines):
    folder.mkdir()
    monkeypatch.setenv("CARD", "NVIDIA H200")
    journal = Journal(folder, "kernels")
    for line in (MACHINE, *lines):
        journal.append(line)
    return journal.path


def test_results_of_calls(tmp_path, monkeypatch):
    contest = contests("tiny")[0][0]
    ours, eager = told(contest, "polaris", {"ms": 2.0}), told(contest, "eager", {"ms": 5.0, "ours is faster by": 2.5})
    first = write(tmp_path / "1", monkeypatch, told(contest, "polaris", {"ms": 3.0}), told(contest, "eager", {}, "out of memory", "80 GiB"))
    second = write(
        tmp_path / "2", monkeypatch, ours, eager, told(contest, "liger", {}, "not run", "no module"), Line(name="x", status="started")
    )
    with second.open("a") as torn:
        torn.write('{"part": "kern')
    (result,) = results_of_calls([first, second]).values()
    assert (result["hardware"], result["versions"], result["date"]) == ("nvidia-h200", "torch 2.11.0", "2026-11-28")
    assert [(row["parameters"]["name"], row["facts"]["ms"]) for row in result["rows"]] == [("polaris", 2.0), ("eager", 5.0)]
    assert [skipped["reason"] for skipped in result["skipped"]] == ["not run: no module"]
    (row,) = readme_rows(result)
    assert row[:2] + row[3:4] + row[-1:] == ["NVIDIA H200", f"linear_logprob {contest.parameters['direction']}", "2", "eager: 2.5"]
    assert "a processor, 16 cores" in markdown(result)
    json.dumps(result)
