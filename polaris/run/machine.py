"""How well a step uses the machine: tokens and FLOPs per GPU, share of each phase, time waited for the slowest rank, host memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from polaris.distributed.mesh import World
from polaris.distributed.waiting import LayerTimes, share_waited
from polaris.learn.packing import TrainingSample
from polaris.model.flops import model_flops, peak_flops
from polaris.observe.phrases import PHASES
from polaris.run.context import TrainContext
from polaris.sampling.remote import RemoteEngines


def machine_facts(context: TrainContext, samples: Sequence[TrainingSample], layers: LayerTimes) -> dict[str, float]:
    """What a step that has trained on `samples` adds to its record. A collective, where there are several ranks.

    Per GPU means: per GPU of trainers and engines together, servers outside of the job included; without GPUs, per rank and worker.
    """
    clock, trainers = context.source.clock, context.sampling.world.size
    step, update, everything = clock.total(), clock.seconds["update"], trainers + _of_engines(context)
    tokens = sum(sample.length for sample in samples)
    facts = {
        "throughput/gpus": everything,
        "throughput/rollout_tokens_per_gpu_s": context.source.carried.generated / step / everything,
        "throughput/train_tokens_per_gpu_s": tokens / step / everything,
        **{f"throughput/share/{phase}": clock.seconds[phase] / step for phase in PHASES if phase in clock.seconds},
    }
    model, dtype, device = context.learner.policy.model, context.config.model.dtype, context.sampling.world.device
    lengths, predicted = [sample.length for sample in samples], sum(len(sample.chosen) for sample in samples)
    if ideal := seconds_at_peak(model, dtype, device, lengths, predicted):
        facts |= {"throughput/mfu_update": ideal / update / trainers, "throughput/mfu_step": ideal / step / everything}
    return facts | _of_ranks(context.sampling.world, layers, update)


def _of_engines(context: TrainContext) -> int:
    """GPUs of engines that have some of their own; known to the first trainer."""
    engines = context.sampling.engine
    return engines.workers if isinstance(engines, RemoteEngines) else 0


def seconds_at_peak(model: PreTrainedModel, dtype: str, device: torch.device, lengths: Sequence[int], predicted: int) -> float | None:
    """Seconds in which one GPU of this kind would train on sequences of these lengths, `predicted` of whose tokens have a loss, at its peak
    in half precision. None without one, for one that is not in the table, and where float32 is computed."""
    if device.type != "cuda" or dtype == "float32" or not (peak := peak_flops(torch.cuda.get_device_name(device))):
        return None
    return model_flops(model).training(lengths, predicted) / peak


def _of_ranks(world: World, layers: LayerTimes, update: float) -> dict[str, float]:
    """Memory of the trainers on the first one's machine, and what the mean trainer waits in the update."""
    found = world.gather([(socket.gethostname(), resident_bytes(), layers.seconds())])
    facts = {"memory/host_gib": sum(size for host, size, _ in found if host == found[0][0]) / 2**30}
    return facts | (
        {"seconds/waited": update * share_waited([times for _, _, times in found])} if world.size > 1 and world.sequence.size == 1 else {}
    )


def resident_bytes() -> int:
    """Bytes of host memory that this process holds now: Linux's resident set, without processes below it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
