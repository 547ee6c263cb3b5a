"""Run on every rank: an update in which rank 1's layers are slow, and the times that each rank measures. Argument: model folder."""

import json
import sys
import time

import torch
from update_once import open_policy, samples, with_logprobs

from polaris.config.schema import RunConfig
from polaris.distributed import mesh
from polaris.distributed.waiting import LayerTimes
from polaris.learn.optimizer import build_optimizer
from polaris.learn.statistics import Statistics
from polaris.learn.update import rank_packs, update

PAUSE_S = 0.15


def main(folder):
    torch.set_num_threads(1)
    world = mesh.start()
    policy, batch, config = open_policy(folder, world), with_logprobs(samples()), RunConfig()
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in policy.layers if world.rank == 1 else ():
        layer.mlp.register_forward_hook(lambda *_: time.sleep(PAUSE_S))
    times = LayerTimes(policy.layers, world)
    packs = rank_packs(batch, world, 128)
    began = time.perf_counter()
    with times.watched():
        update(policy, build_optimizer(policy, config.optimizer), packs, batch, config, Statistics())
    took = time.perf_counter() - began
    policy.eval()
    for pack in packs:  # not watched
        policy(pack.tokens, pack.position_ids, pack.layout, pack.rows, pack.batch.targets, pack.batch.temperature)
    print(json.dumps({"seconds": times.seconds(), "packs": len(packs), "took": took}))
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
