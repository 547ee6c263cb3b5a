"""The real program on the embedded model: learns, is killed, is stopped, and goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from polaris.observe.metrics import deterministic, read_records

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
# The first run on a new machine builds the embedded model.
pytestmark = pytest.mark.timeout(600)
SMALL = ["--trainer.steps=5", "--trainer.prompts_per_step=8", "--checkpoint.every=2", "--eval.every=3", "--eval.samples_per_prompt=1"]


def start(root, name):
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    command = [sys.executable, "-m", "polaris.train", str(CONFIG), f"--root={root}", f"--name={name}", *SMALL]
    return subprocess.Popen(command, env=environment | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=550)
    assert process.returncode == 0, errors[-2000:]


def wait_for_step(folder, step, process):
    deadline = time.monotonic() + 240
    while not any(record["step"] >= step and "reward/mean" in record for record in read_records(folder / "metrics.jsonl")):
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing interrupted."""
    root = tmp_path_factory.mktemp("runs")
    finish(start(root, "straight"))
    return root / "straight"


def repeated(folder):
    return [deterministic(record) for record in read_records(folder / "metrics.jsonl")]


@pytest.mark.vllm
@pytest.mark.slow
def test_a_run_leaves_what_it_promises(straight):
    records = read_records(straight / "metrics.jsonl")
    assert [record["step"] for record in records if "reward/mean" in record] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in records if "eval/accuracy" in record] == [0, 3, 5]
    for record in records:
        if "reward/mean" in record:
            assert record["sync/logprob_gap"] < 1e-4
            assert record["mismatch/logprob_gap_max"] < 1e-4
            assert record["seconds/step"] > 0
    assert (straight / "report.html").stat().st_size > 1000
    assert (straight / "report.png").stat().st_size > 1000
    assert len(list((straight / "rollouts").glob("*.jsonl"))) == 5
    assert json.loads((straight / "config.json").read_text())["trainer"]["steps"] == 5


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_and_resumed_equals_never_interrupted(straight, number):
    folder = straight.parent / f"interrupted-{number}"
    process = start(straight.parent, folder.name)
    wait_for_step(folder, 3, process)
    stopped = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 0
        assert time.monotonic() - stopped < 30
    assert repeated(folder) != repeated(straight)
    finish(start(straight.parent, folder.name))
    assert repeated(folder) == repeated(straight)


@pytest.mark.slow
def test_export_is_a_plain_checkpoint(straight):
    command = [sys.executable, "-m", "polaris.cli", "export", str(straight)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    model = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "3+4"}], add_generation_prompt=True, return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, do_sample=False, max_new_tokens=60)[0])
    assert "</think>" in text
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
