"""Run on every rank: a save in which one rank is late wherever the others must wait, and a load. Arguments: model folder, folder."""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

from polaris.checkpoint import layout, store
from polaris.checkpoint.store import TrainState
from polaris.config.training import OptimizerConfig
from polaris.data.pass_rates import PassRates
from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.distributed.seeds import seed_everything
from polaris.learn.optimizer import build_optimizer
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy

LATE_S = 1.5


def late(function):
    def slowly(*arguments):
        time.sleep(LATE_S)
        return function(*arguments)

    return slowly


def fill(policy, optimizer, value):
    """Weights, gradients and moments that differ from element to element and from rank to rank."""
    for parameter in policy.parameters():
        local = parameter.to_local()
        values = value * torch.arange(1, local.numel() + 1, dtype=local.dtype).view(local.shape)
        with torch.no_grad():
            local.copy_(values)
        for moment in (optimizer.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg_sq"]):
            moment.to_local().copy_(values.abs())


def held(policy, optimizer):
    """This rank's shards."""
    moments = [optimizer.state[p][name].to_local() for p in policy.parameters() for name in ("exp_avg", "exp_avg_sq")]
    return [tensor.detach().clone() for tensor in [*(p.to_local() for p in policy.parameters()), *moments]]


def draws():
    return [torch.rand(3).tolist(), random.random(), np.random.normal()]


def main(model, folder):
    torch.set_num_threads(1)
    world, checkpoints = mesh.start(), Path(folder) / "checkpoints"
    policy = shard(Policy(build_model(Path(model))), world.mesh, torch.float32)
    load_weights(policy.model, Path(model), world.device)
    optimizer = build_optimizer(policy, OptimizerConfig())
    fill(policy, optimizer, 0.5 + world.rank)
    seed_everything(world.rank, deterministic=False)
    draws()  # numpy then keeps the second of a pair of normal numbers
    if world.is_main:
        layout.commit = late(layout.commit)  # nobody goes on before the checkpoint is there
    else:
        store.random_state = late(store.random_state)  # and it is not committed before everybody has written
    state = TrainState(step=7, version=6, sampler={"cursor": 3}, nonfinite_streak=1)
    ledger, again = PassRates(), PassRates()
    ledger.add("prompt", 2, 5)
    final = store.save(checkpoints, state, policy, optimizer, world, keep=2, kept=[ledger])
    facts = {"complete": layout.is_complete(final), "files": sorted(path.name for path in final.glob("*"))}
    before, drawn = held(policy, optimizer), draws()
    fill(policy, optimizer, -1.0)
    seed_everything(99, deterministic=False)
    facts["state"] = store.load(final, policy, optimizer, world, kept=[again]) == state
    facts["kept"] = again.counts == {"prompt": (2, 5)}
    facts["tensors"] = all(torch.equal(a, b) for a, b in zip(before, held(policy, optimizer), strict=True))
    facts["draws"] = drawn == draws()
    (Path(folder) / f"rank-{world.rank}.json").write_text(json.dumps(facts))
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
