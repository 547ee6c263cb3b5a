"""The same rollouts give the same losses and gradients on one rank and on two, and however they are packed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
import update_once

from polaris.distributed import mesh
from polaris_kernels.policy_loss.registry import LOSSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


def relative(a, b):
    return float((a - b).norm() / b.norm())


def torchrun(ranks, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, timeout=240)


@pytest.mark.distributed
def test_two_ranks_equal_one(folder, tmp_path):
    for ranks in (1, 2):
        torchrun(ranks, update_once.__file__, folder, tmp_path / f"{ranks}.pt")
    one, two = (torch.load(tmp_path / f"{ranks}.pt", weights_only=True) for ranks in (1, 2))
    for name in LOSSES:
        a, b = two["results"][name], one["results"][name]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["statistics"] == pytest.approx(b["statistics"], rel=1e-5, abs=1e-9)
        worst = max(relative(a["grads"][key], b["grads"][key]) for key in b["grads"])
        print(f"{name}: worst relative gradient difference 2 ranks vs 1: {worst:.1e}")
        assert worst <= 1e-5
    for (loss_two, norm_two), (loss_one, norm_one) in zip(two["losses"], one["losses"], strict=True):
        assert loss_two == pytest.approx(loss_one, rel=1e-5)
        assert norm_two == pytest.approx(norm_one, rel=1e-5)
    for outcome in (one, two):
        assert outcome["skipped"]
        assert outcome["unchanged"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("correction", ["off", "mask"])
def test_gradients_do_not_depend_on_packing(folder, loss, correction):
    world = mesh.start()
    try:
        policy = update_once.open_policy(folder, world)
        whole, *split = (update_once.gradients(policy, world, loss, budget, correction) for budget in (10**6, 200, 1))
    finally:
        mesh.stop()
    assert whole["packs"] == 1
    assert split[0]["packs"] > 1
    assert split[1]["packs"] == len(update_once.samples())
    for other in split:
        assert other["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert max(relative(other["grads"][key], whole["grads"][key]) for key in whole["grads"]) <= 1e-5
