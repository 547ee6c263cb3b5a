"""Run on every rank: gradients and losses of updates on fixed samples, saved by rank 0. Arguments: model folder, output file."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.learn.aggregate import aggregate_of, count, denominator, weighted
from polaris.learn.learner import Learner
from polaris.learn.optimizer import build_optimizer
from polaris.learn.packing import TrainingSample
from polaris.learn.reference import load_reference
from polaris.learn.statistics import Statistics
from polaris.learn.update import accumulate, rank_packs, update
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy
from polaris.types import Rollout
from polaris_kernels.policy_loss.registry import LOSSES

FLOAT32 = ModelConfig(dtype="float32")


def _sample(prompt_tokens, tokens, advantage, temperature):
    rollout = Rollout(
        prompt_id="",
        sample=0,
        tokens=tokens,
        logprobs=np.zeros(0, np.float32),
        versions=np.zeros(len(tokens), np.int32),
        finish_reason="stop",
        temperature=temperature,
        seed=0,
    )
    return TrainingSample(prompt_tokens=prompt_tokens, rollout=rollout, advantage=advantage, group=len(prompt_tokens) % 4)


def samples(count=13):
    generator = np.random.default_rng(0)
    return [
        _sample(
            tuple(generator.integers(0, 97, generator.integers(1, 12)).tolist()),
            generator.integers(0, 97, generator.integers(1, 60)).astype(np.int32),
            float(generator.normal()),
            float(generator.choice([0.6, 1.0, 1.4])),
        )
        for _ in range(count)
    ]


def open_policy(folder, world):
    policy = shard(Policy(build_model(folder)), world.mesh, torch.float32)
    load_weights(policy.model, Path(folder), world.device)
    return policy


def near_uniform(generator, sample):
    return (-np.log(97) + generator.normal(0, 0.3, len(sample.rollout.tokens))).astype(np.float32)


def with_logprobs(all_samples):
    """Behaviour log-probs near a uniform policy, so that every loss has ratios to work with."""
    generator = np.random.default_rng(1)
    return [
        dataclasses.replace(sample, rollout=dataclasses.replace(sample.rollout, logprobs=near_uniform(generator, sample)))
        for sample in all_samples
    ]


def gradients(policy, world, loss_name, tokens_per_pack, correction, aggregate=None):
    """Loss, statistics and full gradients of one update before clipping, with the behaviour policy as the proximal one."""
    config = RunConfig(algorithm=AlgorithmConfig(loss=loss_name, correction=correction, aggregate=aggregate))
    batch = weighted(with_logprobs(samples()), config.algorithm)
    packs = [
        dataclasses.replace(pack, batch=dataclasses.replace(pack.batch, proximal_logprob=pack.batch.behaviour_logprob))
        for pack in rank_packs(batch, world, tokens_per_pack)
    ]
    total = denominator(aggregate_of(config.algorithm), count(batch, 64))
    policy.train()
    found = accumulate(policy, packs, total, config)
    loss, statistics = found.loss, found.statistics
    torch.distributed.all_reduce(loss)
    statistics.all_reduce(world.device)
    grads = {name: parameter.grad.full_tensor().clone() for name, parameter in policy.model.named_parameters()}
    policy.zero_grad()
    return {"loss": float(loss), "statistics": statistics.compute(), "grads": grads, "packs": len(packs)}


def dealt(folder, policy, world):
    """A step of two updates, and KL to a reference, of samples that rank 0 alone holds; the first three are trained twice."""
    batch = with_logprobs(samples())
    known = batch if world.is_main else [dataclasses.replace(sample, rollout=sample.rollout.without_arrays()) for sample in batch]
    known = [*known, *known[:3]]
    algorithm = AlgorithmConfig(kl="k3", kl_coefficient=0.1)
    config = RunConfig(algorithm=algorithm, trainer=TrainerConfig(updates_per_step=2, tokens_per_pack=128))
    optimizer = build_optimizer(policy, dataclasses.replace(config.optimizer, lr=1e-3))
    reference = load_reference(Path(folder), RopeConfig(), world, torch.float32)
    learner = Learner(policy=policy, optimizer=optimizer, config=config, world=world, reference=reference)
    kl = reference.divergences(known, world, 128).tolist()
    result = learner.update(known, 1)
    return {"kl": kl, "updates": [(one.loss, one.grad_norm) for one in result.updates], "statistics": result.statistics}


def main(folder, output):
    torch.set_num_threads(1)
    world = mesh.start()
    policy = open_policy(folder, world)
    results = {name: gradients(policy, world, name, 128, "tis") for name in LOSSES}
    results |= {kind: gradients(policy, world, "grpo", 128, "tis", kind) for kind in ("token", "prompt", "constant")}
    results["geometric_mask"] = gradients(policy, world, "dapo", 128, "geometric_mask", "sequence")
    config = RunConfig()
    optimizer = build_optimizer(policy, dataclasses.replace(config.optimizer, lr=1e-3))
    batch = with_logprobs(samples())
    losses = []
    for _ in range(3):
        result = update(policy, optimizer, rank_packs(batch, world, 256), batch, config, Statistics())
        losses.append((result.loss, result.grad_norm))
    # One rank's data goes bad: no rank may apply the step.
    before = [weight.clone() for _, weight in policy.named_weights()]
    bad = [dataclasses.replace(s, advantage=float("nan")) if i == 0 else s for i, s in enumerate(batch)]
    result = update(policy, optimizer, rank_packs(bad, world, 256), bad, config, Statistics())
    unchanged = all(torch.equal(a, b) for a, (_, b) in zip(before, policy.named_weights(), strict=True))
    policy.zero_grad()
    of_dealt = dealt(folder, policy, world)
    if world.is_main:
        torch.save({"dealt": of_dealt, "results": results, "losses": losses, "skipped": not result.applied, "unchanged": unchanged}, output)
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
