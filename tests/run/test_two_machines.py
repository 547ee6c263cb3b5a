"""A trainer and an engine on two machines, which are network namespaces here: the same samples as on one, and a cable that is pulled."""

import subprocess
import time

import pytest
from namespaces import machines
from separate_job import HERE, MEASURED, SMALL, assert_same_samples, separate

pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow, pytest.mark.distributed]
APART = (*separate(1, 0), "--trainer.steps=500", "--rollout.engine_timeout_minutes=0.2", "--distributed.update_timeout_minutes=0.2")


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


def test_a_cable_that_is_put_back_and_one_that_is_not(problems, colocated, fork_engines, tmp_path):
    command = [HERE, f"--root={tmp_path}", *SMALL, MEASURED, "--eval.every=100", *APART, *problems]
    with machines() as two:
        nodes = [two.torchrun(machine, 1, *command, environment={"OMP_NUM_THREADS": "1"}) for machine in range(2)]
        wait_for_step(tmp_path, 1, nodes)
        two.pull()
        time.sleep(4)
        assert not (tmp_path / "run" / "step-3.pickle").exists(), "nobody draws"
        two.plug()
        wait_for_step(tmp_path, 4, nodes)
        two.pull()
        pulled = time.monotonic()
        (status, said, over), (other, its_words, its_end) = (ended(node, 120) for node in nodes)
    assert_same_samples(tmp_path, colocated)
    assert status == 1, said
    assert "engine 0 gave no sign of life for 0.2 minutes" in said
    assert "no engine has come back for 0.2 minutes (distributed.update_timeout_minutes)" in said
    assert over - pulled < 60
    assert other == 1, its_words
    assert "nothing was heard of 10.77.0.1" in its_words
    assert its_end - pulled < 90, "its GPUs are free"
