"""Engines that die, hang, or serve other weights, by the real program and the real engine: the run goes on, with the same samples."""

import json
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from programs import run, start_ranks

from polaris.embedded import resolve
from polaris.observe.metrics import read_records

pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow, pytest.mark.distributed]
FOLDER = Path(__file__).parent
HERE = FOLDER / "train_here.py"
SMALL = (
    *("--name=run", "--observe.tensorboard=false", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=48"),
    *("--rollout.kv_cache_mib=32", "--rollout.max_concurrent=8", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1"),
    *('--run.hooks=["keeps_groups:Keep"]', "--distributed.wait_timeout_hours=0.1", "--optimizer.lr=3e-5", "--trainer.steps=3"),
)
SEPARATE = ("--rollout.placement=separate", "--rollout.max_staleness=0", "--rollout.engine=faulty_engine:Faulty")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    pytest.importorskip("vllm")
    with open(resolve("embedded:train"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    chosen = [[row for row in rows if row["difficulty"] == difficulty][place] for difficulty in (3, 4, 5, 6) for place in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return [f"--data.path={path}", f"--eval.path={path}", "--eval.every=100", "--eval.samples_per_prompt=1"]


@pytest.fixture(scope="module")
def colocated(problems, tmp_path_factory):
    root = tmp_path_factory.mktemp("colocated")
    run(HERE, f"--root={root}", *SMALL, *problems, check=True)
    return root


def drawn(root, step):
    return pickle.loads((root / "run" / f"step-{step}.pickle").read_bytes())


def with_faults(ranks, faults, root, *options):
    """Exit statuses and what was said, of a run in which these faults come."""
    seen = root / "seen"
    seen.mkdir(exist_ok=True)
    os.environ |= {"FAULTS": faults, "FAULTS_SEEN": str(seen)}
    try:
        started = start_ranks(ranks, HERE, f"--root={root}", *SMALL, *SEPARATE, *options)
    finally:
        del os.environ["FAULTS"], os.environ["FAULTS_SEEN"]
    try:
        statuses = [rank.wait(300) for rank in started]
    finally:
        for rank in started:
            rank.kill()
    return statuses, ["".join(rank.communicate()) for rank in started], sorted(path.name for path in seen.iterdir())


def assert_same_samples(root, expected):
    for step in (1, 2, 3):
        pairs = list(zip(drawn(root, step), drawn(expected, step), strict=True))
        assert len(pairs) == 16
        for (_, ours), (_, theirs) in pairs:
            assert (ours.prompt_id, ours.sample, ours.tokens.tolist()) == (theirs.prompt_id, theirs.sample, theirs.tokens.tolist())
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
            assert ours.versions.tolist() == theirs.versions.tolist()


def test_killed_in_generation_in_a_transfer_and_while_idle(colocated, problems, tmp_path):
    statuses, said, seen = with_faults(3, "generation transfer idle", tmp_path, *problems, "--rollout.engine_ranks=2")
    assert statuses == [0, 0, 0], said
    assert seen == ["generation", "idle", "transfer"]
    assert said[0].count("was killed by SIGKILL") == 3, said[0]
    assert_same_samples(tmp_path, colocated)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["rollout/engines_lost"] for record in records if "reward/mean" in record][-1] >= 2


def test_one_that_hangs_and_one_that_serves_other_weights(colocated, problems, tmp_path):
    options = ("--rollout.engine_ranks=1", "--rollout.engine_timeout_minutes=0.2")
    statuses, said, seen = with_faults(2, "hang stale", tmp_path, *problems, *options)
    assert statuses == [0, 0], said
    assert seen == ["hang", "stale"]
    assert "engine 0 did not move for 0.2 minutes at: rollouts" in said[0]
    assert re.search(
        r"engine 0 serves other weights: [\d.e-]+ nats per sampled token from version 2, and [\d.e-]+ are allowed\. It", said[0]
    )
    assert_same_samples(tmp_path, colocated)


def test_too_many_losses_end_the_run_and_say_why(problems, tmp_path):
    options = (*problems, "--rollout.engine_ranks=1", "--rollout.engine_restarts=0")
    statuses, said, _ = with_faults(2, "generation", tmp_path, *options)
    assert statuses[0] == 1
    assert "engine 0 was killed by SIGKILL: that is loss 1 of this run, and rollout.engine_restarts allows 0" in said[0]


def test_a_trainer_that_dies_ends_the_job_and_torchrun_resumes_it(problems, tmp_path):
    """It is killed twice, and torchrun may restart it once."""
    options = [f"--root={tmp_path}", *SMALL, *SEPARATE, *problems, "--rollout.engine_ranks=1", "--checkpoint.every=1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m"]
    command = [*torchrun, "polaris.train", *options, '--run.hooks=["dies:Dies"]']
    environment = os.environ | {"FAULTS": "", "FAULTS_SEEN": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
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
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert not left.stdout, "no process of the job is left"
