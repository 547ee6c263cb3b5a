"""The same rollouts give the same losses and gradients on one rank and on two, and however they are packed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_ranks

sys.path.insert(0, str(Path(__file__).parent))
import update_once

from polaris.distributed import mesh
from polaris_kernels.policy_loss.registry import LOSSES


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.distributed
def test_two_ranks_equal_one(tiny_qwen3, tmp_path):
    for ranks in (1, 2):
        run_ranks(ranks, update_once.__file__, tiny_qwen3, tmp_path / f"{ranks}.pt")
    one, two = (torch.load(tmp_path / f"{ranks}.pt", weights_only=True) for ranks in (1, 2))
    for name in one["results"]:
        a, b = two["results"][name], one["results"][name]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["statistics"] == pytest.approx(b["statistics"], rel=1e-5, abs=1e-9)
        worst = max(relative(a["grads"][key], b["grads"][key]) for key in b["grads"])
        print(f"{name}: worst relative gradient difference 2 ranks vs 1: {worst:.1e}")
        assert worst <= 1e-5
    for (loss_two, norm_two), (loss_one, norm_one) in zip(two["losses"], one["losses"], strict=True):
        assert loss_two == pytest.approx(loss_one, rel=1e-5)
        assert norm_two == pytest.approx(norm_one, rel=1e-5)
    assert two["dealt"]["kl"] == pytest.approx(one["dealt"]["kl"], rel=1e-4, abs=1e-5)
    assert two["dealt"]["kl"][:3] == two["dealt"]["kl"][-3:]
    assert np.array(two["dealt"]["updates"]) == pytest.approx(np.array(one["dealt"]["updates"]), rel=1e-4)
    assert two["dealt"]["statistics"] == pytest.approx(one["dealt"]["statistics"], rel=1e-4, abs=1e-6)
    for outcome in (one, two):
        assert outcome["skipped"]
        assert outcome["unchanged"]


@pytest.mark.parametrize(
    ("loss", "correction", "aggregate"),
    [
        *((loss, correction, None) for loss in LOSSES for correction in ("off", "mask")),
        *(("grpo", "tis", kind) for kind in ("token", "prompt", "constant")),
        ("dapo", "sequence_tis", "sequence"),
        ("gspo", "sequence_mask", "prompt"),
    ],
)
def test_gradients_do_not_depend_on_packing(tiny_qwen3, loss, correction, aggregate):
    world = mesh.start()
    try:
        policy = update_once.open_policy(tiny_qwen3, world)
        whole, *split = (update_once.gradients(policy, world, loss, budget, correction, aggregate) for budget in (10**6, 200, 1))
    finally:
        mesh.stop()
    assert whole["packs"] == 1
    assert split[0]["packs"] > 1
    assert split[1]["packs"] == len(update_once.samples())
    for other in split:
        assert other["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert max(relative(other["grads"][key], whole["grads"][key]) for key in whole["grads"]) <= 1e-5
