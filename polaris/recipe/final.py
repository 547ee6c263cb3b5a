"""After the last stage: the checkpoint as a Hugging Face folder, and its evaluation."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from polaris.checkpoint.export import export
from polaris.checkpoint.run_folder import RunFolder
from polaris.config.schema import RunConfig
from polaris.distributed.mesh import World
from polaris.evaluation.engine_source import EngineSource
from polaris.evaluation.markdown import announcement
from polaris.evaluation.run import evaluate_suites
from polaris.evaluation.settings import final_settings
from polaris.evaluation.suites import load_suites
from polaris.recipe.plan import plan_stages
from polaris.rollout.types import GenerationInterrupted
from polaris.stop import StopRequest


def check_final(config: RunConfig, model: Path) -> None:
    """Raise `ValueError` if `[final]` cannot evaluate a run that trains the checkpoint folder `model`."""
    if config.final.suite:
        settings = final_settings(config, model, config.rollout.temperature)
        EngineSource(settings, load_suites(settings)).describe()


def finish(config: RunConfig, folder: RunFolder, world: World, stop: StopRequest) -> bool:
    """Export the last step and evaluate `final.suite`. Earlier results stay. The training context must be closed and dropped before.

    Returns False if a stop was requested; finished samples are on disk.
    """
    gc.collect()  # a sharded policy is part of reference cycles
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
    checkpoint = folder.path / "export" / f"step-{config.steps:06d}"
    with stop.at_once():  # an export appears in one move
        if world.is_main and not (checkpoint.is_dir() and any(checkpoint.iterdir())):
            export(folder.path, checkpoint, config.steps)
        world.barrier()
    if not config.final.suite:
        return True
    own = config.final.temperature
    settings = final_settings(config, checkpoint, last_temperature(config, folder.stages) if own is None else own)
    try:
        place = folder.stages / "evaluation" / checkpoint.name
        result = evaluate_suites(settings, place, world, stop)
        if world.is_main:
            print(announcement(result, place))
    except GenerationInterrupted:
        return False
    return True


def last_temperature(config: RunConfig, stages: Path) -> float:
    """The sampling temperature with which the last stage ended."""
    return plan_stages(config)[-1].last_temperature(stages, "restore it, or set final.temperature")
