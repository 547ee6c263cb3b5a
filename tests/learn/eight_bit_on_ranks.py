"""Run on every rank: a run with 8-bit moments, its resume, and, on two ranks, a resume of the run of one. Argument: a folder."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from polaris.checkpoint import layout
from polaris.checkpoint.saver import Saver
from polaris.checkpoint.store import TrainState, begin_with
from polaris.config.training import CheckpointConfig, DistributedConfig, OptimizerConfig
from polaris.distributed import mesh
from polaris.learn.eight_bit import parts
from polaris.learn.optimizer import build_optimizer, set_learning_rate

STATE = TrainState(step=4, version=4, sampler={}, nonfinite_streak=0)


def build(world):
    """On two ranks the first weight [65, 256] has 33 and 32 rows, the last [1, 65] is on one of them, and the middle one is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 65), nn.Tanh(), nn.Linear(65, 65), nn.Tanh(), nn.Linear(65, 1))
    model[2].requires_grad_(False)
    fully_shard(model, mesh=world.mesh)
    return model, build_optimizer(model, OptimizerConfig(name="adamw8bit"))


def train(model, optimizer, steps):
    """Losses of a regression before each of the steps, of which there are six; every rank has the same batches."""
    losses = []
    for step in steps:
        inputs = torch.randn(64, 256, generator=torch.Generator().manual_seed(step))
        loss = (model(inputs) - inputs[:, :4].sum(1, keepdim=True)).square().mean()
        loss.backward()
        set_learning_rate(optimizer, 1e-2 / step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def held(model, optimizer):
    """This rank's shards, codes and scales."""
    found = [value for state in optimizer.state.values() for value in state.values()]
    return [part.detach().clone() for value in [*model.parameters(), *found] for part in parts(value)]


def trained_and_saved(checkpoints, world):
    """What this rank held when the second of two checkpoints was begun; training goes on meanwhile."""
    model, optimizer = build(world)
    with Saver(checkpoints, CheckpointConfig(), DistributedConfig(), world, lambda saved: None, lambda note: None) as saver:
        for step in range(1, 5):
            train(model, optimizer, [step])
            if step in (2, STATE.step):
                at_save = held(model, optimizer)
                saver.save(replace(STATE, step=step), model, optimizer)
        train(model, optimizer, [5])
    return at_save


def main(folder):
    torch.set_num_threads(1)
    torch.compiler.set_stance("force_eager")
    world = mesh.start()
    saved, of_one = (layout.step_folder(Path(folder) / f"of-{size}", STATE.step) for size in (world.size, 1))
    at_save = trained_and_saved(saved.parent, world)
    model, optimizer = build(world)
    facts = {"coded": sum(len(parts(value)) == 2 for state in optimizer.state.values() for value in state.values())}
    train(model, optimizer, range(1, 7))
    undisturbed = held(model, optimizer)
    model, optimizer = build(world)
    begin_with(saved, model, optimizer)
    facts["same state"] = all(map(torch.equal, at_save, held(model, optimizer)))
    facts["losses"] = train(model, optimizer, range(5, 7))
    facts["same run"] = all(map(torch.equal, undisturbed, held(model, optimizer)))
    begin_with(of_one, model, optimizer)
    facts["of one rank"] = train(model, optimizer, range(5, 7))
    print(json.dumps(facts))
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
