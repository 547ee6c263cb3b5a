"""Where a run starts: its newest complete checkpoint, or the base model."""

from __future__ import annotations

from pathlib import Path

from polaris.checkpoint import layout
from polaris.checkpoint.load import begin_with, load
from polaris.checkpoint.run_folder import Origin, RunFolder
from polaris.checkpoint.state import TrainState
from polaris.errors import Refused
from polaris.run.context import Rooms
from polaris.run.serve import serve_weights


def resume(rooms: Rooms, folder: RunFolder, origin: Origin | None = None) -> TrainState:
    """Restore policy, optimizer, generators, ledger and stored successes, and serve the restored weights; returns the state to go on from.

    A run without a checkpoint begins with `origin`, if there is one, at step 0. The cursor of prompts belongs to a stage, which restores
    it (`polaris.recipe.stage`).

    Raises:
        ValueError: the checkpoint of `origin` is gone, or the run is beyond the last step of its configuration.
    """
    checkpoint = folder.newest_checkpoint()
    rooms.world.barrier()
    if checkpoint is None:
        state = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)
        if origin is not None and origin.part != "export":
            source = layout.step_folder(Path(origin.run) / "checkpoints", origin.step)
            if not layout.is_complete(source):
                raise Refused(f"{source} is gone, with which this run begins; restore it, or begin again with --fresh")
            rooms.engine.sleep()
            begin_with(source, rooms.policy, rooms.optimizer if origin.part == "weights and optimizer" else None)
    else:
        rooms.engine.sleep()  # moments and gradients are made while the checkpoint is read
        state = load(checkpoint, rooms.policy, rooms.optimizer, rooms.world, rooms.kept)
        if state.step > rooms.config.steps:
            raise Refused(
                f"{folder.path} is at step {state.step}, beyond the {rooms.config.steps} steps that are asked for; raise trainer.steps"
            )
    serve_weights(rooms, state.version)
    return state
