"""SIGKILL at random moments of an asynchronous save; a run that goes on from its newest complete checkpoint must equal one that was not
killed."""

import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest
import torch
from saving import open_saver
from torch.distributed.tensor import distribute_tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.checkpoint import layout
from polaris.distributed.seeds import seed_everything

KILLS = 20


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


def train_on(policy, optimizer):
    """An update whose gradients are drawn from the generator that a checkpoint restores."""
    for parameter in policy.parameters():
        parameter.grad = distribute_tensor(torch.randn(parameter.shape), parameter.device_mesh, parameter.placements)
    optimizer.step()


def digest(policy, optimizer, ledger):
    moments = [optimizer.state[parameter][name] for parameter in policy.parameters() for name in ("exp_avg", "exp_avg_sq")]
    numbers = b"".join(tensor.full_tensor().detach().numpy().tobytes() for tensor in (*policy.parameters(), *moments))
    return hashlib.sha256(numbers + json.dumps(ledger.counts, sort_keys=True).encode()).hexdigest()


def live(folder, checkpoints, said, last):
    """A life of a run: from its newest checkpoint to step `last`, each step saved; it says its states' digests by step."""
    from polaris.checkpoint.store import TrainState, load
    from polaris.data.pass_rates import PassRates

    world, policy, optimizer = open_policy(folder)
    seed_everything(1, deterministic=False)
    ledger, step, steps = PassRates(), 0, layout.complete_steps(checkpoints)
    train_on(policy, optimizer)  # moments are there
    if steps:
        step = load(layout.step_folder(checkpoints, steps[-1]), policy, optimizer, world, kept=[ledger]).step
        assert step == steps[-1]
    with open_saver(checkpoints, world) as saver, said.open("a") as file:
        print(step, digest(policy, optimizer, ledger), file=file, flush=True)
        while step < last:
            step += 1
            train_on(policy, optimizer)
            ledger.add(f"prompt-{step}", step, 2 * step)
            saver.look()
            saver.save(TrainState(step=step, version=step, sampler={}, nonfinite_streak=0), policy, optimizer, kept=[ledger])
            print(step, digest(policy, optimizer, ledger), file=file, flush=True)


def save_where_files_may_not_grow(folder, checkpoints, answer):
    """As on a full disk: the second save fails."""
    from polaris.checkpoint.store import TrainState
    from polaris.errors import RunFailed

    world, policy, optimizer = open_policy(folder)
    saver = open_saver(checkpoints, world)
    for step in (1, 2):
        train_on(policy, optimizer)
        if step == 2:
            saver.finish()
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        saver.save(TrainState(step=step, version=step, sampler={}, nonfinite_streak=0), policy, optimizer)
    try:
        while True:
            saver.look()
    except RunFailed as error:
        answer.put(str(error))


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
        ["transformers.models.qwen3.modeling_qwen3", "polaris.checkpoint.saver", "polaris.learn.optimizer", "polaris.data.pass_rates"]
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
def test_a_run_that_is_killed_twenty_times_while_it_saves_equals_one_that_is_not(folder, context, tmp_path):
    moments, interrupted, newest = random.Random(0), 0, []
    checkpoints, said = tmp_path / "checkpoints", tmp_path / "said"
    checkpoints.mkdir()
    for _ in range(KILLS):
        life = context.Process(target=live, args=(folder, checkpoints, said, 10_000))
        life.start()
        before = set(checkpoints.glob("*"))
        while set(checkpoints.glob("*")) <= before:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.2))
        os.kill(life.pid, signal.SIGKILL)
        life.join()
        interrupted += any(path.name.endswith(".writing") for path in checkpoints.glob("*"))
        newest.append(max(layout.complete_steps(checkpoints), default=0))
    assert interrupted >= KILLS // 4, "too few kills fell into a save for the test to mean anything"
    assert newest == sorted(newest)
    last = newest[-1] + 2
    for place in (checkpoints, tmp_path / "straight"):
        life = context.Process(target=live, args=(folder, place, place.with_suffix(".said") if place != checkpoints else said, last))
        life.start()
        life.join()
        assert life.exitcode == 0
    straight = dict(line.split() for line in (tmp_path / "straight.said").read_text().splitlines())
    lives = [line.split() for line in said.read_text().splitlines()]
    assert len(lives) > len(straight), "steps that were lost were made again"
    assert dict(lives) == straight
    assert all(straight[step] == value for step, value in lives)
