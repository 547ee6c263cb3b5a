"""The recipe from the difficulty pass to the last stage: each phase is passed over where its result is there."""

from __future__ import annotations

from dataclasses import replace

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.state import TrainState
from polaris.errors import Refused
from polaris.recipe.curation import curate_prompts
from polaris.recipe.difficulty import measure_difficulty
from polaris.recipe.plan import plan_stages
from polaris.recipe.stage import close_stage, dropped_by, open_stage, without
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted
from polaris.run.context import Rooms
from polaris.run.loop import Recorder, train_to


def run(rooms: Rooms, folder: RunFolder, state: TrainState, recorder: Recorder) -> TrainState:
    """Difficulty pass -> curation -> (temperature probe -> training -> drop what became easy) per stage, or until a stop is requested.

    Raises:
        CurationError: too few prompts teach anything; nothing was trained.
    """
    try:
        rooms = prepare_prompts(rooms, folder, state)
        for stage in plan_stages(rooms.config):
            dropped = dropped_by(stage, folder.stages)
            if dropped is None and state.step > stage.end:
                raise Refused(f"{stage.result(folder.stages).path} is gone, and cannot be made again at step {state.step}; restore it")
            if dropped is None or state.step < stage.end:
                opened = open_stage(rooms, stage, state, folder.stages)
                state = train_to(stage.end, opened, folder, state, recorder)
                if state.step < stage.end or rooms.world.any(rooms.stop.requested()):
                    return state  # at its last step a stopped stage stays open: its evaluation may be missing
                dropped = close_stage(opened, stage, folder.stages)
            rooms = replace(rooms, prompts=without(rooms.prompts, dropped))
    except GenerationInterrupted:
        rooms.console.note("stop requested: what this phase has finished is on disk, and the same command goes on from there")
    return state


def prepare_prompts(rooms: Rooms, folder: RunFolder, state: TrainState) -> Rooms:
    """The rooms with the prompts that curation leaves; the ledger begins with the offline pass rates.

    Once something is trained the prompts are those that were chosen, whatever has changed since: another choice would be another epoch.
    """
    if not rooms.config.difficulty.samples_per_prompt:
        return rooms
    if state.step and (chosen := Result(folder.stages / "curation.json").read("dropped")) is not None:
        return replace(rooms, prompts=without(rooms.prompts, chosen["dropped"]))
    if state.step > 0 and not rooms.config.difficulty.column:  # these weights cannot measure it again
        Result(folder.stages / "difficulty.json", remedy="restore it, or run `polaris difficulty` with this configuration").read_existing()
    measured = measure_difficulty(rooms, rooms.prompts, folder.stages)
    curation = curate_prompts(rooms, rooms.prompts, measured, folder.stages)
    if state.step == 0:
        rooms.ledger.restore(measured)
    return replace(rooms, prompts=curation.prompts)
