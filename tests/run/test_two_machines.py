"""A trainer and an engine on two machines, which are network namespaces here: the same samples as on one, and a cable that is pulled."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from namespaces import machines

from polaris.embedded import resolve
from polaris.observe.metrics import read_records

pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow, pytest.mark.distributed]
HERE = Path(__file__).with_name("train_here.py")
SMALL = (
    *("--name=run", "--observe.tensorboard=false", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=48"),
    *("--rollout.kv_cache_mib=32", "--rollout.max_concurrent=8", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1"),
    *("--optimizer.lr=3e-5", "--checkpoint.every=1", "--rollout.placement=separate", "--rollout.engine_ranks=1"),
    "--rollout.max_staleness=0",
)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    pytest.importorskip("vllm")
    with open(resolve("embedded:train"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:40]))
    return [f"--data.path={path}", f"--eval.path={path}", "--eval.every=100", "--eval.samples_per_prompt=1"]


def start(two, root, *options):
    command = (HERE, f"--root={root}", *SMALL, *options)
    return [two.torchrun(machine, 1, *command, environment={"OMP_NUM_THREADS": "1"}) for machine in range(2)]


def wait_for_step(root, step, nodes):
    metrics = root / "run" / "metrics.jsonl"
    while None in [node.poll() for node in nodes] and not (metrics.exists() and len(read_records(metrics)) >= step):
        time.sleep(0.05)


def ended(nodes, seconds):
    """Exit statuses and what was said; None for a node that goes on."""
    found = []
    for node in nodes:
        try:
            said, _ = node.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            node.kill()
            said, _ = node.communicate()
            found.append((None, said))
        else:
            found.append((node.returncode, said))
    return found


def test_a_cable_that_is_put_back_and_one_that_is_not(problems, tmp_path):
    with machines() as two:
        nodes = start(two, tmp_path, *problems, "--trainer.steps=6", "--rollout.engine_timeout_minutes=1")
        wait_for_step(tmp_path, 2, nodes)
        two.pull()
        time.sleep(5)
        before = len(read_records(tmp_path / "run" / "metrics.jsonl"))
        two.plug()
        outcome = ended(nodes, 180)
    assert [status for status, _ in outcome] == [0, 0], outcome
    assert before < 6
    assert [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    with machines() as two:
        options = ("--trainer.steps=500", "--rollout.engine_timeout_minutes=0.1", "--distributed.update_timeout_minutes=0.2")
        nodes = start(two, tmp_path, *problems, *options)
        wait_for_step(tmp_path, 8, nodes)
        two.pull()
        pulled = time.monotonic()
        outcome = ended(nodes, 120)
        seconds = time.monotonic() - pulled
    assert outcome[0][0] == 1, outcome
    assert "engine 0 gave no sign of life for 0.1 minutes" in outcome[0][1]
    assert "no engine has come back for 0.2 minutes (distributed.update_timeout_minutes)" in outcome[0][1]
    assert seconds < 90, "both machines are free again"
    assert outcome[1][0], outcome
