"""The guard of a run's start: does what `polaris plan` counts fit the GPUs that are really there?"""

from __future__ import annotations

import os
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.distributed.mesh import World
from polaris.host import host_memory
from polaris.model.fused import can_fuse
from polaris.plan.advice import refuse_what_does_not_fit
from polaris.plan.cards import GIB, card_of_device
from polaris.plan.setup import Engines, Setup, Stage, setup_of
from polaris.plan.shape import shape_of_model


def check_memory(model: PreTrainedModel, config: RunConfig | SftConfig, world: World, *, longest: int, engine: Engines) -> None:
    """Raise `Refused`, naming what helps, if on CUDA this rank's GPU or its node's memory is too small for the plan of the configuration.

    Sequences have up to `longest` tokens, and `engine` samples. The model's weights may be anywhere, or nowhere yet.
    """
    if world.device.type == "cuda":
        device = torch.cuda.get_device_properties(world.device)
        refuse_what_does_not_fit(setup_here(model, config, world, device.name, device.total_memory, longest, engine))


def setup_here(
    model: PreTrainedModel, config: RunConfig | SftConfig, world: World, name: str, total: int, longest: int, engine: Engines
) -> Setup:
    """The plan's record of this job, whose GPUs have `total` bytes."""
    gpus = int(os.environ.get("LOCAL_WORLD_SIZE", world.job.size))
    nodes, rest = divmod(world.job.size, gpus)
    gpus, nodes = (world.job.size, 1) if rest else (gpus, nodes)
    planned = setup_of(config, shape_of_model(model), card_of_device(name, total), gpus, nodes)
    fused = planned.fused and (config.model.compile or can_fuse(model))
    return replace(planned, engine=engine, fused=fused, prompt=0, stages=(Stage(steps=0, response=longest),), host_gib=host_memory() / GIB)
