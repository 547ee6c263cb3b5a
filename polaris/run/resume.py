"""Where a run starts: its newest complete checkpoint, or the base model."""

from __future__ import annotations

from pathlib import Path

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import Origin, RunFolder
from polaris.checkpoint.store import TrainState, begin_with, load
from polaris.errors import Refused
from polaris.run.context import TrainContext


def resume(context: TrainContext, folder: RunFolder, origin: Origin | None = None) -> TrainState:
    """Restore policy, optimizer, generators, pass rates and stored successes, and serve the restored weights; returns the state to go on
    from.

    A run without a checkpoint begins with `origin`, if there is one, at step 0. The cursor of prompts belongs to a stage, which restores
    it (`polaris.recipe.stage`).

    Raises:
        ValueError: the checkpoint of `origin` is gone, or the run is beyond the last step of its configuration.
    """
    source, learner, steps = context.source, context.learner, context.config.steps
    checkpoint = folder.newest_checkpoint()
    learner.world.barrier()
    if checkpoint is None:
        state = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)
        if origin is not None and origin.part != "export":
            begun = layout.step_folder(Path(origin.run) / "checkpoints", origin.step)
            if not layout.is_complete(begun):
                raise Refused(f"{begun} is gone, with which this run begins; restore it, or begin again with --fresh")
            source.sleep()
            begin_with(begun, learner.policy, learner.optimizer if origin.part == "weights and optimizer" else None)
    else:
        source.sleep()  # moments and gradients are made while the checkpoint is read
        state = load(checkpoint, learner.policy, learner.optimizer, learner.world, context.kept)
        if learner.world.any(any(change.startswith("reward.") for change in folder.changes.altering)):
            source.carried.begin_anew()  # its verdicts are those of another reward
        if state.step > steps:
            raise Refused(f"{folder.path} is at step {state.step}, beyond the {steps} steps that are asked for; raise trainer.steps")
    source.publish(learner.weights(), state.version)
    return state
