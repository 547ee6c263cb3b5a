"""`benchmarks/gpu.sh` loses no figure: kills, red tests, no memory, no time."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import kernels
from benchmarks.gpu.figures import Call, Figure, red, suite_name, take
from benchmarks.gpu.journal import Journal, Line, read
from benchmarks.gpu.program import ROOT, descendants, end_all, follow
from benchmarks.gpu.suites import run_suites
from benchmarks.kernels.contests import OPERATIONS
from benchmarks.step.train_step import TINY, measure_step
from polaris.model.policy import Policy

RED = "linear_policy_loss"


@pytest.fixture
def call(tmp_path):
    return Call(journal=Journal(tmp_path, "kernels"), end=time.time() + 100, small=True)


@pytest.fixture
def ceilings(tmp_path):
    """The real part, in processes of its own, at the smallest sizes."""
    environment = os.environ | {"OUT": str(tmp_path), "SMALL": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/kernels"}
    command = [sys.executable, "-u", "-m", "benchmarks.gpu.run", "ceilings"]
    program = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    yield program
    end_all(program)


def ended(path):
    return {line["name"]: line["status"] for line in read(path / "results.jsonl") if line["status"] != "started"}


def wait_until_gone(processes):
    deadline = time.time() + 10
    while alive := [process for process in processes if running(process)]:
        assert time.time() < deadline, alive
        time.sleep(0.05)


def running(process):
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_a_kill_at_any_moment_loses_only_the_figure_in_flight(ceilings, tmp_path):
    told = [ceilings.stdout.readline() for _ in range(random.randint(2, 8))]
    time.sleep(random.uniform(0, 0.3))
    workers = descendants(ceilings.pid)
    ceilings.kill()
    told += ceilings.stdout.read().splitlines()
    lines = read(tmp_path / "results.jsonl")
    assert [line["name"] for line in lines if line["status"] != "started"] == [line.split(": ")[1] for line in told]
    assert all(line["values"]["TFLOP/s"] > 0 for line in lines if "product" in line["name"] and line["status"] == "ok")
    wait_until_gone(workers)  # else it would hold the device in the next call


def test_a_kill_leaves_nothing_behind():
    ranks = "import subprocess; from benchmarks.gpu.guard import guard; guard(); subprocess.run(['setsid', 'sleep', '100'])"
    program = subprocess.Popen([sys.executable, "-c", ranks], cwd=ROOT, start_new_session=True)
    try:
        while not (found := [p for p in descendants(program.pid) if b"sleep" in Path(f"/proc/{p}/cmdline").read_bytes()]):
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        wait_until_gone(found)
    finally:
        end_all(program)


def test_when_a_worker_dies_its_figure_is_a_failure_and_the_rest_goes_on(ceilings, tmp_path):
    while not any(line["name"].startswith("product") and line["status"] == "started" for line in read(tmp_path / "results.jsonl")):
        time.sleep(0.01)
    (worker,) = (p for p in descendants(ceilings.pid) if b"--worker" in Path(f"/proc/{p}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    assert ceilings.wait(60) == 0
    outcomes = ended(tmp_path)
    failed = [name for name, status in outcomes.items() if status == "failed"]
    assert len(failed) == 1
    assert "gradient" in failed[0] or "product" in failed[0]
    assert {status for name, status in outcomes.items() if name not in failed} <= {"ok", "not run"}
    assert list(outcomes)[-1] == "after"


def test_a_red_operation_blocks_its_own_figures_alone(call):
    for operation in OPERATIONS:
        reason = {"status": "failed", "reason": "one"} if operation == RED else {}
        call.journal.append(Line(name=suite_name(operation), **reason))
    take(kernels.figures(call), call)
    lines = [line for line in call.journal.lines() if line["status"] != "started"]
    assert {line["name"] for line in lines if line["status"] == "blocked"} == {f"{RED}-tiny-64, ours", f"{RED}-tiny-64"}
    measured = {line["row"]["test"] for line in lines if line["status"] == "ok" and "ms" in line.get("values", {})}
    assert measured == set(OPERATIONS) - {RED}
    assert {line["status"] for line in lines if line["name"] != suite_name(RED)} == {"ok", "blocked", "not run"}
    beside = {line["row"]["parameters"]["name"] for line in lines if "ours is faster by" in line.get("values", {})}
    assert {"eager", "torch"} <= beside


def test_an_operation_whose_tests_have_not_run_is_not_measured(call, tmp_path):
    assert "have not run" in red("policy_loss", call.journal)
    test = tmp_path / "test_it.py"
    test.write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.outcomes", "--rootdir", str(tmp_path), str(test)]
    environment = os.environ | {"OUTCOMES": str(tmp_path), "OUTCOMES_PART": "tests"}
    take(run_suites({suite_name("policy_loss"): {"args": command, "cwd": ROOT, "env": environment}}, call), call)
    assert "are red" in red("policy_loss", call.journal)
    test, file = (line for line in read(call.journal.path) if line["part"] == "tests")
    assert (test["name"], test["status"], test["reason"]) == ("test_it.py::test_bad", "failed", "assert 1 == 2")
    assert (file["name"], file["status"], file["values"]["passed"], file["values"]["failed"]) == ("test_it.py", "failed", 1, 1)
    assert file["reason"] == "test_bad: assert 1 == 2"


def suite(program):
    return {"args": [sys.executable, "-c", f"import sys, time; {program}"]}


def test_suites_begin_together_and_each_is_waited_for(call, monkeypatch):
    """What has begun gets its verdict though less time is left than a suite needs to begin."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    commands = {"a": suite("time.sleep(2)"), "b": suite("sys.exit(1)"), "c": suite("time.sleep(3)")}
    late = dataclasses.replace(call, end=time.time() + 61, small=False)
    take(run_suites(commands, late), late)
    assert ended(call.folder) == {"a": "ok", "b": "failed", "c": "ok"}


def test_suites_that_are_not_waited_for_are_ended(call, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    figures, before = run_suites({"a": suite("pass"), "b": suite("time.sleep(300)")}, call), descendants(os.getpid())
    assert [line.status for line in next(figures).run()] == ["ok"]
    alive = set(descendants(os.getpid())) - set(before)
    assert alive
    figures.close()
    wait_until_gone(alive)


def test_a_torn_line_is_left_out(tmp_path):
    Journal(tmp_path, "kernels").append(Line(name="whole"))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"part": "kernels", "na')
    Journal(tmp_path, "kernels").append(Line(name="after"))
    assert ended(tmp_path) == {"whole": "ok", "after": "ok"}


def test_no_memory_a_failure_and_no_time_are_lines(call):
    def fails():
        yield Line(name="half of it", values={"s": 1.0})
        raise ValueError("bad")

    figures = [
        Figure(
            name="too large", seconds=1, run=lambda: [Line(name="too large", values={"GiB": len(torch.empty(2**52, dtype=torch.uint8))})]
        ),
        Figure(name="fails", seconds=1, run=fails),
        Figure(name="fits", seconds=1, run=lambda: [Line(name="fits", values={"s": 2.0})]),
    ]
    take(figures, call)
    take([Figure(name="late", seconds=1000, run=fails)], Call(journal=call.journal, end=time.time() + 1, small=False))
    assert ended(call.folder) == {"too large": "out of memory", "half of it": "ok", "fails": "failed", "fits": "ok", "late": "not run"}
    assert "out of time" in read(call.journal.path)[-1]["reason"]
    take(figures, call)
    assert sum(line["name"] == "fits" for line in read(call.journal.path)) == 2, "a figure that has a line is taken again"
    later = dataclasses.replace(call, journal=Journal(call.folder, "kernels"))
    take(figures[2:], later)
    assert sum(line["name"] == "fits" for line in read(call.journal.path)) == 4, "another call takes its own"


def policies():
    return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), Policy)}


def test_the_policy_is_gone_after_its_measurement(tmp_path):
    before = policies()
    gc.disable()
    try:
        assert measure_step(TINY, tmp_path, 64, rounds=1)["tokens/s"] > 0
        assert policies() <= before
    finally:
        gc.enable()


def test_records_come_as_they_are_written_and_the_program_stops_in_time(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    program = f"""
import json, os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
child = subprocess.Popen(["sleep", "100"], start_new_session=True)
for step in range(1000):
    with open({str(metrics)!r}, "a") as file: file.write(json.dumps({{"step": step, "child": child.pid}}) + "\\n")
    time.sleep(0.2)
"""
    metrics.write_text('{"step": -1}\n')
    seen = []
    for record in follow([sys.executable, "-c", program], metrics, time.time() + 1.5):
        seen.append(record)
        assert json.loads(metrics.read_text().splitlines()[len(seen)])["step"] == record["step"]
    assert 1 <= len(seen) < 50
    wait_until_gone([seen[0]["child"]])
