"""`polaris sft` from the configuration to a run that is resumed, killed, exported and trained on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import forked
from safetensors.torch import load_file
from tuning import records, tune, write_config

from polaris import sft
from polaris.checkpoint.branch import served
from polaris.checkpoint.run_folder import release
from polaris.errors import Refused

HERE = Path(__file__)
pytestmark = pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model


def weights(folder):
    (exported,) = (folder / "export").glob("step-*4")
    return load_file(exported / "model.safetensors")


@pytest.fixture(scope="module")
def whole(no_world, tmp_path_factory):
    """A run that nobody interrupts."""
    return tune(write_config(tmp_path_factory.mktemp("whole")))


def test_the_loss_falls_and_the_run_is_a_model(whole):
    losses = {record["step"]: record["eval/loss"] for record in records(whole) if "eval/loss" in record}
    assert list(losses) == [0, 2, 4]
    assert losses[4] < losses[0]
    assert Path(served(str(whole))) == whole / "export" / "step-000004"
    assert (whole / "report.html").is_file()


def test_every_metric_is_on_the_page_and_nothing_else(whole):
    table = (HERE.parents[2] / "docs" / "sft.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    named = {name for line in table.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split("|")[1])}
    found = {name for record in records(whole) for name in record}
    assert found - {"step", "optimizer/grad_norm", "optimizer/lr"} == named


def test_resumed_equals_never_interrupted(whole, tmp_path):
    path = write_config(tmp_path)
    tune(path, "--trainer.steps=1")
    tune(path, "--trainer.steps=3")
    resumed = tune(path)
    assert [one for one in records(resumed) if "sft/loss" in one] == [one for one in records(whole) if "sft/loss" in one]
    assert all(value.equal(weights(whole)[name]) for name, value in weights(resumed).items())


@pytest.mark.distributed
def test_a_run_that_is_made_longer_loses_no_example(tmp_path):
    """Its last step was a small one: of 24 examples it had taken 14 by 8."""
    path = write_config(tmp_path, trainer="{ epochs = 0.6, examples_per_step = 8, cpu_threads = 1 }", eval="{}")
    found = [records(tune(path, *options))[-1] for options in ((), ("--trainer.epochs=2",))]
    assert [(record["step"], record["epoch"]) for record in found] == [(2, 14 / 24), (7, 2.0)]


def test_two_ranks_with_a_stop_equal_one(whole, tmp_path):
    path, metrics = write_config(tmp_path), tmp_path / "run" / "metrics.jsonl"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*torchrun, *forked(), "-m", "polaris.sft", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([*command, "--trainer.steps=1000"], env=environment, stdout=subprocess.DEVNULL)
    while first.poll() is None and (not metrics.exists() or metrics.read_text().count("sft/loss") < 1):
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143
    done = max(record["step"] for record in records(tmp_path / "run"))
    found = [record for record in records(tmp_path / "run") if "sft/loss" in record]
    assert (tmp_path / "run" / "checkpoints" / f"step-{done:06d}" / "COMMIT.json").is_file()
    expected = [record for record in records(whole) if "sft/loss" in record]
    for one, two in zip(expected, found, strict=False):
        assert two == pytest.approx(one, rel=1e-4)


EXHAUSTED = """
import os, sys
import torch
from polaris import sft
from polaris.model.policy import Policy
from polaris.supervised.tuner import Tuner

update, forward, begun = Tuner.update, Policy.forward, []

def of_step(tuner, examples, step):
    begun.append(step)
    return update(tuner, examples, step)

def on_a_small_gpu(policy, tokens, *others, **more):
    if begun and begun[-1] >= {step} and os.environ["RANK"] == "1" and tokens.numel() > {most}:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return forward(policy, tokens, *others, **more)

Tuner.update, Policy.forward = of_step, on_a_small_gpu
sys.exit(sft.main(sys.argv[1:]))
"""


def test_ranks_whose_memory_is_exhausted_are_started_again_with_halved_packs(whole, tmp_path):
    """A rank has four examples of 31 tokens, and room for one: packs are halved twice."""
    path, program = write_config(tmp_path, checkpoint="{ every = 1 }"), tmp_path / "exhausted.py"
    program.write_text(EXHAUSTED.format(step=3, most=40))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2", "--no-python"]
    command = [*torchrun, *forked(), str(program), str(path), "--trainer.tokens_per_pack=130"]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240)
    assert (
        ended.stderr.count("torchrun starts all ranks again: from the last checkpoint, if there is one, with packs of half the size") == 2
    )
    assert "1/4 of trainer.tokens_per_pack, since a GPU's memory was exhausted before this restart" in ended.stdout
    assert ended.returncode == 0
    found, expected = ([one for one in records(folder) if "sft/loss" in one] for folder in (tmp_path / "run", whole))
    assert len(found) == len(expected)
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--data.path=missing.jsonl"], "missing.jsonl does not exist"),
        (["--data.train_on=['tool']"], "have no turn of tool"),
        (["--data.max_tokens=10"], "exceed data.max_tokens = 10"),
        (["--trainer.epochs=2"], "trainer.epochs and trainer.steps are two lengths"),
        (["--trainer.num_train_epochs=2"], "here it is trainer.epochs"),
        (["--rollout.temperature=1"], "is unknown"),
        (["--from=runs/x"], "--model.path=runs/NAME"),
        (["--model.chat_template={{ messages[0].content }}"], "of which the chat template"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(tmp_path, overrides, said):
    with pytest.raises(Refused) as refusal:
        sft.prepare([str(write_config(tmp_path)), *overrides])
    assert said in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_a_change_of_results_is_refused(whole):
    path = whole.parent / "sft.toml"
    with pytest.raises(Refused, match=r"optimizer.lr: 0.001 -> 0.1"):
        sft.prepare([str(path), "--optimizer.lr=0.1"])
    release()
    with pytest.raises(Refused, match=r"trainer.examples_per_step: 8 -> 4, in which the steps so far are counted"):
        sft.prepare([str(path), "--trainer.examples_per_step=4", "--change"])


def test_a_dry_run_shows_what_is_trained_on(tmp_path, capsys):
    assert sft.main([str(write_config(tmp_path)), "--dry-run"]) == 0
    assert "<|user|>What is 0 plus 0?<|end|><|assistant|>⟦It is 119.<|end|>⟧" in capsys.readouterr().out
    assert sft.main(["--help"]) == 0
    assert "--data.train_on" in capsys.readouterr().out
