"""Where a run starts: its newest complete checkpoint, or the base model."""

from __future__ import annotations

from polaris.checkpoint.load import load
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.state import TrainState
from polaris.trainer.rooms import Rooms
from polaris.trainer.serve import serve_weights


def resume(rooms: Rooms, folder: RunFolder) -> TrainState:
    """Restore policy, optimizer, generators and cursor, and serve the restored weights; returns the state to go on from."""
    checkpoint = folder.newest_checkpoint()
    rooms.world.barrier()
    if checkpoint is None:
        state = TrainState(step=0, version=0, sampler=rooms.sampler.state(), nonfinite_streak=0)
    else:
        state = load(checkpoint, rooms.policy, rooms.optimizer, rooms.world)
        rooms.sampler.restore(state.sampler)
    serve_weights(rooms, state.version)
    return state
