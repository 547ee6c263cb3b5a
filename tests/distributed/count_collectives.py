"""Rank 3 of 8 on torch's fake process group: which collectives an update and a publication make. Argument: model folder. Prints JSON."""

import dataclasses
import json
import sys
from collections import Counter

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from polaris.config.model import ModelConfig
from polaris.config.schema import RunConfig
from polaris.config.training import DistributedConfig
from polaris.distributed.fsdp import assert_sharded, reshard, shard
from polaris.distributed.mesh import World
from polaris.learn.optimizer import build_optimizer
from polaris.learn.packing import TrainingSample
from polaris.learn.statistics import Statistics
from polaris.learn.update import logprobs, rank_packs, update
from polaris.model.activations import save_activations
from polaris.model.load import build_model
from polaris.model.policy import Policy
from polaris.types import Rollout


class Collectives(TorchDispatchMode):
    """Counts calls of torch.distributed by their operator."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace in ("c10d", "_c10d_functional"):
            self.counts[function._opname.strip("_")] += 1
        return function(*args, **(kwargs or {}))


def open_policy(folder, mesh, **options):
    policy = shard(Policy(build_model(folder)), mesh, torch.bfloat16, **options)
    buffers = dict(policy.model.named_buffers())
    policy.model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.to_local().normal_(0, 0.02)
        for name, buffer in policy.model.named_buffers():
            buffer.copy_(buffers[name])
    save_activations(policy.model, "recompute", torch.device("cpu"))
    return policy


def samples():
    return [
        TrainingSample(
            prompt_tokens=(1, 2, 3),
            rollout=Rollout(
                prompt_id="",
                sample=0,
                tokens=np.arange(length, dtype=np.int32) % 500,
                logprobs=np.full(length, -6.0, np.float32),
                versions=np.zeros(length, np.int32),
                finish_reason="stop",
                temperature=1.0,
                seed=0,
            ),
            advantage=1.0,
        )
        for length in range(5, 60)
    ]


def plain_tensors(policy):
    return [name for name, parameter in policy.named_parameters() if not isinstance(parameter, DTensor)]


def counted_update(policy, world, config):
    packs = rank_packs(samples(), world, 128)
    with Collectives() as counting:
        result = update(policy, build_optimizer(policy, config.optimizer), packs, samples(), config, Statistics())
    assert_sharded(policy)
    return packs, result, counting


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=8)
    mesh = init_device_mesh("cpu", (8,), mesh_dim_names=("data",))
    world, config = World(rank=3, size=8, device=torch.device("cpu"), mesh=mesh), RunConfig(model=ModelConfig(dtype="bfloat16"))
    policy = open_policy(folder, mesh)
    packs, result, updating = counted_update(policy, world, config)
    copies = init_device_mesh("cpu", (2, 4), mesh_dim_names=("replicate", "shard"))
    copied = counted_update(open_policy(folder, copies), dataclasses.replace(world, mesh=copies), config)[2]
    keeping = dataclasses.replace(config, distributed=DistributedConfig(reshard=False))
    kept = counted_update(open_policy(folder, mesh, reshard=False), world, keeping)[2]
    with Collectives() as publishing:
        published = sum(1 for _ in policy.named_weights())
    with torch.no_grad():
        logprobs(policy, packs[0])
    gathered = plain_tensors(policy)
    reshard(policy)
    assert_sharded(policy)
    facts = {
        "packs": result.packs,
        "layers": len(policy.model.model.layers),
        "update": updating.counts,
        "copied": copied.counts,
        "kept": kept.counts,
        "published": published,
        "publish": publishing.counts,
        "gathered": gathered,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
