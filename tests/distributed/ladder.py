"""Run on every rank: an update by every rung of the memory ladder and by pairs of them, saved by rank 0. Arguments: model folder, output.

The plain path is first: all ranks shard one copy, packs are of one rank, activations stay.
"""

import dataclasses
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
import update_once

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.lora import LoraConfig
from polaris.config.model import MemoryConfig
from polaris.config.schema import RunConfig
from polaris.config.training import DistributedConfig, OptimizerConfig, TrainerConfig
from polaris.distributed import mesh
from polaris.learn.aggregate import aggregate_of, count, denominator, gradient_scale, weighted
from polaris.learn.learner import Learner
from polaris.learn.optimizer import build_optimizer
from polaris.learn.reference import Reference, load_reference
from polaris.learn.update import accumulate, rank_packs
from polaris.model.adapters import shaken_adapters
from polaris.run.load_policy import load_policy
from polaris_kernels.policy_loss.registry import LOSSES

PLAIN = (MemoryConfig(activations="keep"), DistributedConfig())
SEQUENCES = (("dapo", "sequence_tis", None), ("grpo", "geometric_mask", "token"), ("gspo", "mask", "prompt"), ("grpo", "tis", "constant"))
"""Loss, correction and aggregate where sequences matter otherwise than in the losses' own way."""


def rungs(ranks):
    """Settings of memory and ranks, and the rank of adapters: the plain path, every rung alone, several at once, and with adapters. What
    does not depend on the number of ranks is tried alone on fewer than four."""
    kinds = ("recompute_mlp", "recompute", "offload") if ranks == 1 else ()
    host = MemoryConfig(activations="offload", optimizer="host")
    memory = [MemoryConfig(activations=kind) for kind in kinds]
    memory += [MemoryConfig(activations="keep", optimizer="host")] if ranks < 4 else []
    memory += [host]
    ways = [DistributedConfig(reshard=False)] if ranks < 4 else []
    ways += [DistributedConfig(sequence_parallel=share) for share in (2, 4) if share <= ranks]
    ways += [DistributedConfig(replicas=2)] if ranks > 1 else []
    ways += [DistributedConfig(sequence_parallel=2, replicas=2, reshard=False)] if ranks == 4 else []
    yield *PLAIN, 0
    yield from ((one, PLAIN[1], 0) for one in memory)
    yield from ((PLAIN[0], way, 0) for way in ways)
    yield from ((host, way, 0) for way in ways[-2:])
    yield *PLAIN, 3
    yield from ((PLAIN[0], way, 3) for way in ways[-2:])
    yield host, ways[-1], 3


def gradients(policy, world, config, size=9):
    """Loss, statistics, and gradients before clipping, of an update of several packs."""
    batch = weighted(update_once.with_logprobs(update_once.samples(size)), config.algorithm, world.sequence.size > 1)
    packs = [
        dataclasses.replace(pack, batch=dataclasses.replace(pack.batch, proximal_logprob=pack.batch.behaviour_logprob))
        for pack in rank_packs(batch, world, 40)
    ]
    assert len(packs) > 1 or size == 1
    kind, counts = aggregate_of(config.algorithm), count(batch, 64)
    policy.train()
    found = accumulate(policy, packs, denominator(kind, counts), config, gradient_scale(kind, counts))
    loss, statistics = found.loss, found.statistics
    dist.all_reduce(loss)
    statistics.all_reduce(world.device)
    grads = {name: one.grad.full_tensor().clone() for name, one in policy.model.named_parameters() if one.requires_grad}
    policy.zero_grad()
    return {"loss": float(loss), "statistics": statistics.compute(), "grads": grads}


def step(folder, policy, world, config):
    """A step of two updates with a KL term: what depends on log-probs of earlier passes. Metrics, and the weights after it."""
    config = dataclasses.replace(
        config,
        algorithm=AlgorithmConfig(loss="gspo", kl="k3", kl_coefficient=0.1),
        trainer=TrainerConfig(updates_per_step=2, tokens_per_pack=40),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    batch = update_once.with_logprobs(update_once.samples(8))
    adapted = config.model.lora.rank
    reference = Reference(policy) if adapted else load_reference(Path(folder), config.rope, world, torch.float32)
    optimizer = build_optimizer(policy, config.optimizer)
    learner = Learner(policy=policy, optimizer=optimizer, config=config, world=world, reference=reference)
    kl = reference.divergences(batch, world, 40).tolist()
    result = learner.update(batch, 1)
    learner.assert_sharded()
    updates = [(one.loss, one.grad_norm) for one in result.updates]
    return {"kl": kl, "updates": updates, "statistics": result.statistics, "weights": {n: w.clone() for n, w in learner.weights()}}


def main(folder, output):
    torch.set_num_threads(1)
    world = mesh.start()
    found = {}
    for memory, way, rank in rungs(world.size):
        divided, sequence = mesh.divide(world.rank, world.size, world.device, way)
        here = dataclasses.replace(world, mesh=divided, sequence=sequence)
        model = dataclasses.replace(update_once.FLOAT32, lora=LoraConfig(rank=rank))
        config = RunConfig(model=model, memory=memory, distributed=way)
        policy, _ = load_policy(Path(folder), config, here, longest=64)
        losses = [(loss, "tis", None) for loss in LOSSES if loss == "gspo" or not rank]
        losses += SEQUENCES if memory == PLAIN[0] and not rank and (way.sequence_parallel > 1 or world.size == 1) else []
        with shaken_adapters(policy, 0, 0.3):
            results = {"a single sample": gradients(policy, here, config, 1)}
            for loss, correction, aggregate in losses:
                algorithm = AlgorithmConfig(loss=loss, correction=correction, aggregate=aggregate)
                results[f"{loss}, {correction}, {aggregate}"] = gradients(policy, here, dataclasses.replace(config, algorithm=algorithm))
            results["step"] = step(folder, policy, here, config)
        found[f"adapters of rank {rank}, {memory}, {way}"] = results
    if world.is_main:
        torch.save(found, output)
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
