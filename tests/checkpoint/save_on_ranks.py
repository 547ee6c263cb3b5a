"""Run on every rank: a save in which one rank is late wherever the others must wait, while training goes on; a load; and a save that fails
on one rank. Arguments: model folder, folder."""

import errno
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from saving import open_saver

from polaris.checkpoint import layout, store
from polaris.checkpoint.store import TrainState
from polaris.config.training import OptimizerConfig
from polaris.data.pass_rates import PassRates
from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.distributed.seeds import seed_everything
from polaris.errors import RunFailed
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


def fail_on_the_last(saver, state, policy, optimizer, world):
    """Every rank hears of it, at the same call."""

    def full(folder, rank):
        raise OSError(errno.ENOSPC, "No space left on device")

    if not world.is_main:
        layout.rank_file = full
    saver.save(state, policy, optimizer)
    try:
        while True:
            saver.look()
    except RunFailed as error:
        return "the checkpoint of step 8 cannot be written to" in str(error) and "No space left on device" in str(error)


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
        layout.commit = late(layout.commit)  # nobody hears of the checkpoint before it is there
    else:
        layout.rank_file = late(rank_file := layout.rank_file)  # and it is not committed before everybody has written
    state = TrainState(step=7, version=6, sampler={"cursor": 3}, nonfinite_streak=1)
    ledger, again, heard, final = PassRates(), PassRates(), [], layout.step_folder(checkpoints, 7)
    ledger.add("prompt", 2, 5)
    saver = open_saver(checkpoints, world, on_saved=lambda saved: heard.append((saved.step, layout.is_complete(saved.folder))))
    saver.save(state, policy, optimizer, kept=[ledger])
    before, drawn = held(policy, optimizer), draws()
    facts = {"goes on": not final.exists() and not heard}
    fill(policy, optimizer, -1.0)
    ledger.add("prompt", 1, 1)
    seed_everything(99, deterministic=False)
    saver.look()
    facts["goes on"] &= not heard
    saver.finish()
    if not world.is_main:
        layout.rank_file = rank_file
    facts["heard"] = heard == [(7, True)]
    facts["files"] = sorted(path.name for path in final.glob("*"))
    facts["state"] = store.load(final, policy, optimizer, world, kept=[again]) == state
    facts["kept"] = again.counts == {"prompt": (2, 5)}
    facts["tensors"] = all(torch.equal(a, b) for a, b in zip(before, held(policy, optimizer), strict=True))
    facts["draws"] = drawn == draws()
    facts["failed"] = fail_on_the_last(saver, TrainState(step=8, version=7, sampler={}, nonfinite_streak=0), policy, optimizer, world)
    (Path(folder) / f"rank-{world.rank}.json").write_text(json.dumps(facts))
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
