"""The guard of a run's start: does what `polaris plan` counts fit the GPUs that are really there? And its advice where it did not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.distributed import restart
from polaris.distributed.mesh import World
from polaris.errors import RunFailed, in_one_line
from polaris.learn.passes import can_split
from polaris.model.fused import can_fuse
from polaris.plan.advice import refuse_what_does_not_fit, rungs_below
from polaris.plan.cards import card_of_device
from polaris.plan.machine import host_gib
from polaris.plan.setup import Engines, Setup, Stage, setup_of
from polaris.plan.shape import shape_of_model


def check_memory(model: PreTrainedModel, config: RunConfig | SftConfig, world: World, *, longest: int, engine: Engines) -> None:
    """Raise `Refused`, naming what helps, if on CUDA this rank's GPU or its node's memory is too small for the plan of the configuration.

    Sequences have up to `longest` tokens, and `engine` samples. The model's weights may be anywhere, or nowhere yet.
    """
    if world.device.type == "cuda":
        device = torch.cuda.get_device_properties(world.device)
        refuse_what_does_not_fit(setup_here(model, config, world, device.name, device.total_memory, longest, engine))


@contextmanager
def advised(model: PreTrainedModel, config: RunConfig | SftConfig, world: World) -> Iterator[None]:
    """Raise `RunFailed` where an update in the block exhausts the memory of this rank's GPU: with what the plan advises, unless torchrun
    starts the ranks again, which then train with packs of half the size."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if restart.comes() and not can_split():
            restart.leave_halvings(world.job.store, world.halvings + 1)
            again = "torchrun starts all ranks again: from the last checkpoint, if there is one, with packs of half the size"
            raise RunFailed(f"{in_one_line(error, 120)} {again}") from error
        if world.device.type != "cuda":
            raise
        device = torch.cuda.get_device_properties(world.device)
        advice = rungs_below(_setup(model, config, world, device.name, device.total_memory))
        raise RunFailed(
            f"{in_one_line(error, 120)} The plan advises: {advice} (docs/memory.md); the same command goes on from the last checkpoint"
        ) from error


def setup_here(
    model: PreTrainedModel, config: RunConfig | SftConfig, world: World, name: str, total: int, longest: int, engine: Engines
) -> Setup:
    """The plan's record of this job, whose GPUs have `total` bytes."""
    planned = _setup(model, config, world, name, total)
    return replace(planned, engine=engine, prompt=0, stages=(Stage(steps=0, response=longest),))


def _setup(model: PreTrainedModel, config: RunConfig | SftConfig, world: World, name: str, total: int) -> Setup:
    """The same with the lengths and the engine that the configuration names."""
    gpus = int(os.environ.get("LOCAL_WORLD_SIZE", world.job.size))
    nodes, rest = divmod(world.job.size, gpus)
    gpus, nodes = (world.job.size, 1) if rest else (gpus, nodes)
    planned = setup_of(config, shape_of_model(model), card_of_device(name, total), gpus, nodes)
    fused = planned.fused and (config.model.compile or can_fuse(model))
    return replace(planned, fused=fused, host_gib=host_gib())
