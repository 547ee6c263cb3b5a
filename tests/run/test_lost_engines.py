"""Engines that die, hang, or serve other weights, by the real program and the real engine: the run goes on, with the same samples."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import forked, start_ranks
from separate_job import HERE, MEASURED, SMALL, assert_same_samples, separate

from polaris.observe.metrics import read_records

pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow, pytest.mark.distributed]
FOLDER = Path(__file__).parent
JOB = (*SMALL, MEASURED, "--trainer.steps=3", "--eval.every=100", "--rollout.engine=faulty_engine:Faulty")


def with_faults(ranks, faults, root, *options):
    """Exit statuses and what was said, of a run in which these faults come."""
    seen = root / "seen"
    seen.mkdir(exist_ok=True)
    os.environ |= {"FAULTS": faults, "FAULTS_SEEN": str(seen)}
    try:
        started = start_ranks(ranks, HERE, f"--root={root}", *JOB, *options)
    finally:
        del os.environ["FAULTS"], os.environ["FAULTS_SEEN"]
    try:
        statuses = [rank.wait(300) for rank in started]
    finally:
        for rank in started:
            rank.kill()
    return statuses, ["".join(rank.communicate()) for rank in started], sorted(path.name for path in seen.iterdir())


def test_killed_in_generation_in_a_transfer_and_while_idle(colocated, problems, fork_engines, tmp_path):
    statuses, said, seen = with_faults(3, "generation transfer idle", tmp_path, *problems, *separate(2, 0))
    assert statuses == [0, 0, 0], said
    assert seen == ["generation", "idle", "transfer"]
    assert said[0].count("was killed by SIGKILL") == 3, said[0]
    assert_same_samples(tmp_path, colocated)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["rollout/engines_lost"] for record in records if "reward/mean" in record][-1] >= 2


def test_one_that_hangs_and_one_that_serves_other_weights(colocated, problems, fork_engines, tmp_path):
    options = (*separate(1, 0), "--rollout.engine_timeout_minutes=0.2")
    statuses, said, seen = with_faults(2, "hang stale", tmp_path, *problems, *options)
    assert statuses == [0, 0], said
    assert seen == ["hang", "stale"]
    assert "engine 0 did not move for 0.2 minutes at: rollouts" in said[0]
    assert re.search(
        r"engine 0 serves other weights: [\d.e-]+ nats per sampled token from version 2, and [\d.e-]+ are allowed\. It", said[0]
    )
    assert_same_samples(tmp_path, colocated)


def test_too_many_losses_end_the_run_and_say_why(problems, fork_engines, tmp_path):
    options = (*problems, *separate(1, 0), "--rollout.engine_restarts=0")
    statuses, said, _ = with_faults(2, "generation", tmp_path, *options)
    assert statuses[0] == 1
    assert "engine 0 was killed by SIGKILL: that is loss 1 of this run, and rollout.engine_restarts allows 0" in said[0]


def test_a_trainer_that_dies_ends_the_job_and_torchrun_resumes_it(problems, fork_engines, tmp_path):
    """It is killed twice, and torchrun may restart it once."""
    options = [f"--root={tmp_path}", *JOB, *problems, *separate(1, 0), "--checkpoint.every=1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "--no-python"]
    command = [*torchrun, *forked(), "-m", "polaris.train", *options, '--run.hooks=["dies:Dies"]']
    own = {"FAULTS": "", "FAULTS_SEEN": str(tmp_path), "FORKED": str(tmp_path / "forked")}
    environment = os.environ | own | {"PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    job = subprocess.Popen(command, env=environment, text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
    try:
        said, _ = job.communicate(timeout=400)
    finally:
        job.kill()
    ended = time.time()
    assert job.returncode == 1
    deaths = [float(line) for line in (tmp_path / "deaths").read_text().split()]
    assert len(deaths) == 2
    assert ended - deaths[1] < 60, "within a minute"
    steps = [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl") if "reward/mean" in record]
    assert steps == [1, 2, 3], said
    assert said.count("SIGKILL") == 1, said
    assert "polaris: rank 0 (process " in said
    assert "Traceback" not in said
    processes = (tmp_path / "forked").read_text().split()
    assert len(processes) == 6, "two ranks and an engine, in each of two lives"
    deadline = time.monotonic() + 30
    while left := [process for process in processes if Path("/proc", process).exists()]:
        assert time.monotonic() < deadline, f"{left} are left"
        time.sleep(0.1)
