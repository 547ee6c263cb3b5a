"""Run on every rank: adapters, their gradients on fixed samples, and merged weights. Arguments: model folder, rank 0's output file."""

import dataclasses
import sys
from pathlib import Path

import torch
from update_once import samples, with_logprobs

from polaris.config.lora import LoraConfig
from polaris.config.model import ModelConfig
from polaris.config.schema import RunConfig
from polaris.config.training import OptimizerConfig
from polaris.distributed import mesh
from polaris.distributed.fsdp import assert_sharded, full
from polaris.learn.optimizer import build_optimizer
from polaris.learn.passes import Passes
from polaris.learn.reference import Reference
from polaris.learn.statistics import Statistics
from polaris.learn.update import guarded_step, logprobs, rank_packs
from polaris.model.adapters import shaken_adapters
from polaris.run.load_policy import load_policy

LORA = LoraConfig(rank=3, alpha=5.0, targets=("q_proj", "o_proj", "gate_proj", "down_proj"))
CONFIG = RunConfig(model=ModelConfig(dtype="float32", lora=LORA))


def backward(policy, packs):
    policy.train()
    for pack in packs:
        (-logprobs(policy, pack).sum()).backward()


def measured(folder, dtype, world):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, dtype=dtype))
    policy, _ = load_policy(folder, config, world, longest=128)
    found = {"first": {name: value.clone() for name, value in policy.named_adapters()}}
    packs = rank_packs(with_logprobs(samples()), world, 128)
    optimizer = build_optimizer(policy, OptimizerConfig(lr=0.1, weight_decay=0.0))
    with shaken_adapters(policy, 0, 0.3):
        found["adapters"] = {name: value.clone() for name, value in policy.named_adapters()}
        found["merged"] = {name: value.clone() for name, value in policy.named_weights()}
        backward(policy, packs)
        found["grads"] = {name: full(p.grad) for name, p in policy.named_parameters() if p.grad is not None}
        policy.zero_grad()
        logprobs = Reference(policy).logprobs(packs)
        found["reference"] = world.gather([(members, one) for members, one in zip(packs.plan, logprobs, strict=True)])
    assert_sharded(policy)
    frozen = {name: full(p).clone() for name, p in policy.named_parameters() if not p.requires_grad}
    backward(policy, packs)
    norm = sum(float(full(p.grad).square().sum()) for p in policy.parameters() if p.grad is not None) ** 0.5
    passes = Passes(loss=torch.zeros((), dtype=torch.float64), statistics=Statistics(), packs=len(packs))
    result = guarded_step(policy, optimizer, passes, 1e9)
    found["norms"] = (norm, result.grad_norm)
    found["moved"] = sorted(name for name, value in policy.named_adapters() if not torch.equal(value, found["first"][name]))
    found["frozen"] = all(torch.equal(value, full(policy.get_parameter(name))) for name, value in frozen.items())
    found["dtypes"] = {name: str(p.dtype) for name, p in policy.named_parameters()}
    found["held"] = len(optimizer.state)
    return found


def main(folder, output):
    torch.set_num_threads(1)
    world = mesh.start()
    found = {dtype: measured(Path(folder), dtype, world) for dtype in ("float32", "bfloat16")}
    if world.is_main:
        torch.save(found, output)
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
