"""SIGKILL at random moments of a save; the newest complete checkpoint must load and be whole."""

import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.checkpoint import layout

KILLS = 8


def open_policy(folder):
    from polaris.config.training import OptimizerConfig
    from polaris.distributed import mesh
    from polaris.distributed.fsdp import shard
    from polaris.learn.optimizer import build_optimizer
    from polaris.model.load import build_model, load_weights
    from polaris.model.policy import Policy

    os.environ.pop("RANK", None)
    torch.set_num_threads(1)
    world = mesh.start()
    policy = shard(Policy(build_model(folder)), world.mesh, torch.float32)
    load_weights(policy.model, folder, world.device)
    return world, policy, build_optimizer(policy, OptimizerConfig())


def fill(policy, optimizer, step):
    """Weights, and one optimizer step's moments, that tell the step they belong to."""
    for parameter in policy.parameters():
        torch.nn.init.constant_(parameter, float(step))
        parameter.grad = torch.full_like(parameter, float(step))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        group["weight_decay"] = 0.0
    optimizer.step()


def save_for_ever(folder, checkpoints):
    from polaris.checkpoint.store import TrainState, save
    from polaris.data.pass_rates import PassRates

    world, policy, optimizer = open_policy(folder)
    step = max(layout.complete_steps(checkpoints), default=0)
    while True:
        step += 1
        fill(policy, optimizer, step)
        state = TrainState(step=step, version=step, sampler={"epoch": 0, "cursor": step}, nonfinite_streak=0)
        ledger = PassRates()
        ledger.add("prompt", step, step)
        save(checkpoints, state, policy, optimizer, world, keep=2, kept=[ledger])


def load_newest(folder, checkpoints, answer):
    from polaris.checkpoint.store import load
    from polaris.data.pass_rates import PassRates

    world, policy, optimizer = open_policy(folder)
    steps = layout.complete_steps(checkpoints)
    ledger = PassRates()
    state = load(layout.step_folder(checkpoints, steps[-1]), policy, optimizer, world, kept=[ledger])
    whole = all(bool((p.full_tensor() == state.step).all()) for p in policy.parameters())
    answer.put((steps[-1], state.step, state.sampler["cursor"], ledger.counts, whole, len(optimizer.state_dict()["state"])))


def save_where_files_may_not_grow(folder, checkpoints, answer):
    """As on a full disk: the second save fails."""
    from polaris.checkpoint.store import TrainState, save
    from polaris.errors import RunFailed

    world, policy, optimizer = open_policy(folder)
    for step in (1, 2):
        fill(policy, optimizer, step)
        state = TrainState(step=step, version=step, sampler={}, nonfinite_streak=0)
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            save(checkpoints, state, policy, optimizer, world, keep=2)
        except RunFailed as error:
            answer.put(str(error))
            return


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    Qwen3ForCausalLM(
        Qwen3Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16)
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "transformers.models.qwen3", "torch.distributed.checkpoint", "polaris.model.load", "polaris.data.pass_rates"]
    )
    return context


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(folder, context, tmp_path):
    checkpoints, answer = tmp_path / "checkpoints", context.Queue()
    saver = context.Process(target=save_where_files_may_not_grow, args=(folder, checkpoints, answer))
    saver.start()
    message = answer.get(timeout=100)
    saver.join()
    assert "the checkpoint of step 2 cannot be written to" in message
    assert "MiB are free (" in message
    assert "dict_keys" not in message, "the reason is said, not which ranks have it"
    assert layout.complete_steps(checkpoints) == [1]


@pytest.mark.slow
def test_a_complete_checkpoint_always_loads(folder, context, tmp_path):
    moments, interrupted = random.Random(0), 0
    checkpoints = Path(tmp_path / "checkpoints")
    for _ in range(KILLS):
        saver = context.Process(target=save_for_ever, args=(folder, checkpoints))
        saver.start()
        before = set(checkpoints.glob("*"))
        while set(checkpoints.glob("*")) <= before or not layout.complete_steps(checkpoints):
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.5))
        os.kill(saver.pid, signal.SIGKILL)
        saver.join()
        interrupted += any(path.name.endswith(".writing") for path in checkpoints.glob("*"))
        answer = context.Queue()
        loader = context.Process(target=load_newest, args=(folder, checkpoints, answer))
        loader.start()
        newest, step, cursor, counts, whole, moments_kept = answer.get(timeout=60)
        loader.join()
        assert newest == step == cursor
        assert counts == {"prompt": (step, step)}
        assert whole
        assert moments_kept
    assert interrupted >= KILLS // 4, "too few kills fell into a save for the test to mean anything"
