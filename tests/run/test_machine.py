"""Figures per GPU count every GPU; MFU is the arithmetic of what was trained over what the cards can do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from samples import training_sample
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.config.model import ModelConfig
from polaris.distributed.mesh import World
from polaris.distributed.waiting import LayerTimes
from polaris.run import machine
from polaris.sampling.remote import RemoteEngines

LAYER = 64 * (2 * 64 + 2 * 32) + 3 * 64 * 96  # queries and output, keys and values, MLP
HEAD = 97 * 64


class Engines(RemoteEngines):
    """An engine with two ranks of the job, and a server of four GPUs."""

    def __init__(self):
        pass

    workers = 6


def context(engine, dtype="bfloat16", device="cpu"):
    with torch.device("meta"):
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=97,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=16,
            )
        )
    world = World(rank=0, size=1, device=torch.device(device), mesh=None)
    clock = SimpleNamespace(seconds={"rollout": 6.0, "update": 2.0, "sync": 1.0}, total=lambda: 10.0)
    return SimpleNamespace(
        source=SimpleNamespace(clock=clock, carried=SimpleNamespace(generated=700)),
        sampling=SimpleNamespace(world=world, engine=engine),
        learner=SimpleNamespace(policy=SimpleNamespace(model=model)),
        config=SimpleNamespace(model=ModelConfig(dtype=dtype)),
    )


def facts(engine, **how):
    samples = [
        training_sample(prompt_tokens=(1, 2, 3), tokens=np.zeros(length, np.int32), logprobs=np.zeros(length, np.float32), advantage=1.0)
        for length in (7, 17)
    ]
    one = context(engine, **how)
    return machine.machine_facts(one, samples, LayerTimes((), one.sampling.world))


def test_engines_of_their_own_and_servers_count():
    found = facts(Engines())
    assert found["throughput/gpus"] == 7
    assert found["throughput/rollout_tokens_per_gpu_s"] == pytest.approx(700 / 10 / 7)
    assert found["throughput/train_tokens_per_gpu_s"] == pytest.approx(30 / 10 / 7)


def test_shares_of_the_step_and_no_mfu_on_a_cpu():
    found = facts(None)
    shares = {key: value for key, value in found.items() if "share" in key}
    assert shares == {"throughput/share/rollout": 0.6, "throughput/share/update": 0.2, "throughput/share/sync": 0.1}
    assert 0.05 < found["memory/host_gib"] < 24
    assert not [key for key in found if "mfu" in key or "waited" in key]


def test_mfu_of_the_update_and_of_the_step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    found = facts(Engines(), device="cuda")
    flops = 6 * (30 * 2 * LAYER + 24 * HEAD) + 6 * 2 * 64 * (10**2 + 20**2)
    assert found["throughput/mfu_update"] == pytest.approx(flops / 2 / 989e12)
    assert found["throughput/mfu_step"] == pytest.approx(flops / 10 / 7 / 989e12)
    meta = context(None).learner.policy.model
    assert machine.seconds_at_peak(meta, "bfloat16", torch.device("cuda"), [10, 20], 24) == pytest.approx(flops / 989e12)
    assert "throughput/mfu_step" not in facts(None, device="cuda", dtype="float32")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some card")
    assert "throughput/mfu_step" not in facts(None, device="cuda")
