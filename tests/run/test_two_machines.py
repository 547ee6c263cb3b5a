"""A trainer and an engine on two machines, which are network namespaces here: the same samples as on one, and a cable that is pulled."""

import json
import pickle
import subprocess
import time
from pathlib import Path

import pytest
from namespaces import machines
from programs import run

from polaris.embedded import resolve

pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow, pytest.mark.distributed]
HERE = Path(__file__).with_name("train_here.py")
SMALL = (
    *("--name=run", "--observe.tensorboard=false", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=48"),
    *("--rollout.kv_cache_mib=32", "--rollout.max_concurrent=8", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1"),
    *("--optimizer.lr=3e-5", '--run.hooks=["keeps_groups:Keep"]'),
)
APART = (
    *("--rollout.placement=separate", "--rollout.engine_ranks=1", "--rollout.max_staleness=0", "--trainer.steps=500"),
    *("--rollout.engine_timeout_minutes=0.2", "--distributed.update_timeout_minutes=0.2"),
)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    pytest.importorskip("vllm")
    with open(resolve("embedded:train"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:40]))
    return [f"--data.path={path}", f"--eval.path={path}", "--eval.every=100", "--eval.samples_per_prompt=1"]


def wait_for_step(root, step, nodes):
    """The trainer has drawn what step `step` trains on, and trained."""
    while not (root / "run" / f"step-{step}.pickle").exists():
        assert [node.poll() for node in nodes] == [None, None]
        time.sleep(0.05)


def ended(node, seconds):
    """Exit status, what was said, and when; no status for a node that goes on."""
    try:
        said, _ = node.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, "", time.monotonic()
    return node.returncode, said, time.monotonic()


def test_a_cable_that_is_put_back_and_one_that_is_not(problems, tmp_path):
    run(HERE, f"--root={tmp_path / 'one'}", *SMALL, *problems, "--trainer.steps=3", check=True)
    root, command = tmp_path / "two", [HERE, f"--root={tmp_path / 'two'}", *SMALL, *APART, *problems]
    with machines() as two:
        nodes = [two.torchrun(machine, 1, *command, environment={"OMP_NUM_THREADS": "1"}) for machine in range(2)]
        wait_for_step(root, 1, nodes)
        two.pull()
        time.sleep(4)
        assert not (root / "run" / "step-3.pickle").exists(), "nobody draws"
        two.plug()
        wait_for_step(root, 4, nodes)
        two.pull()
        pulled = time.monotonic()
        (status, said, over), (other, its_words, its_end) = (ended(node, 120) for node in nodes)
    for step in (1, 2, 3):
        ours, theirs = (pickle.loads((tmp_path / name / "run" / f"step-{step}.pickle").read_bytes()) for name in ("two", "one"))
        assert [rollout.tokens.tolist() for _, rollout in ours] == [rollout.tokens.tolist() for _, rollout in theirs]
    assert status == 1, said
    assert "engine 0 gave no sign of life for 0.2 minutes" in said
    assert "no engine has come back for 0.2 minutes (distributed.update_timeout_minutes)" in said
    assert over - pulled < 60
    assert other == 1, its_words
    assert "nothing was heard of 10.77.0.1" in its_words
    assert its_end - pulled < 90, "its GPUs are free"
