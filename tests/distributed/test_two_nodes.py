"""One job on two machines, which are network namespaces here: one machine's losses, a cable that is pulled, and one machine in the end."""

import time
from itertools import islice

import pytest
from namespaces import machines
from programs import run

from polaris.config.load import load_job
from polaris.config.sft import SftConfig
from polaris.embedded import resolve
from polaris.observe.metrics import read_records

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.distributed]
SETTINGS = (
    *("configs/embedded-sft.toml", "--name=run", "--optimizer.schedule=constant", "--optimizer.warmup_steps=0", "--trainer.cpu_threads=1"),
    *("--trainer.examples_per_step=8", "--eval.every=10000", "--checkpoint.every=5", "--observe.tensorboard=false"),
    *("--distributed.update_timeout_minutes=0.2", "--distributed.wait_timeout_hours=0.05"),
)


@pytest.fixture
def rows(tmp_path):
    """Few of the embedded rows, which are soon encoded."""
    for key, name in (("data", "embedded:demonstrations"), ("eval", "embedded:unseen-demonstrations")):
        with open(resolve(name), encoding="utf-8") as file:
            (tmp_path / f"{key}.jsonl").write_text("".join(islice(file, 64)))
    return f"--data.path={tmp_path}/data.jsonl", f"--eval.path={tmp_path}/eval.jsonl"


def command(root, rows, steps):
    return "-m", "polaris.sft", *SETTINGS, *rows, f"--root={root}", f"--trainer.steps={steps}"


def losses(root):
    """The loss of each step so far."""
    return {record["step"]: record["sft/loss"] for record in read_records(root / "run" / "metrics.jsonl") if "sft/loss" in record}


def wait_for(condition, nodes, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert [node.poll() for node in nodes] == [None, None], [node.communicate() for node in nodes]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(file):
    file.seek(0)
    return file.read()


def test_a_job_of_two_machines_outlives_a_pulled_cable_and_goes_on_with_one(rows, tmp_path):
    apart, alone = tmp_path / "apart", tmp_path / "alone"
    assert load_job(SftConfig, SETTINGS[0], SETTINGS[1:]).checkpoint.asynchronous
    with machines() as two, open(tmp_path / "0", "w+") as first, open(tmp_path / "1", "w+") as second:
        words = (first, second)
        nodes = [
            two.torchrun(machine, 1, *command(apart, rows, 100_000), environment={"OMP_NUM_THREADS": "1"}, words=words[machine], restarts=1)
            for machine in range(2)
        ]
        wait_for(lambda: len(losses(apart)) > 11, nodes)
        two.pull()
        pulled = time.monotonic()
        wait_for(lambda: "rank 1 HANGS: its process has no heartbeat" in said(first), nodes)
        wait_for(lambda: "nothing was heard of 10.77.0.1 for 0.2 minutes" in said(second), nodes)
        assert time.monotonic() - pulled < 60
        before = len(losses(apart))
        two.plug()
        wait_for(lambda: "resumed" in said(first) and len(losses(apart)) > before + 6, nodes)
        for node in nodes:
            node.terminate()
        assert [node.wait(60) for node in nodes] == [143, 143], (said(first), said(second))
    steps = max(losses(apart)) + 6
    run(*command(apart, rows, steps), check=True)
    run(*command(alone, rows, steps), check=True)
    found, expected = losses(apart), losses(alone)
    assert found.keys() == expected.keys() == set(range(1, steps + 1))
    assert found == pytest.approx(expected, rel=1e-4)
