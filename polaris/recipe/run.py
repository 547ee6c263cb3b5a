"""The recipe from the difficulty pass to the last stage. A phase whose result is there is skipped."""

from __future__ import annotations

from dataclasses import replace

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.data.pass_rates import read_lengths
from polaris.errors import Refused
from polaris.recipe.curation import curate_prompts
from polaris.recipe.difficulty import measure_difficulty
from polaris.recipe.measured import read_results
from polaris.recipe.plan import plan_stages
from polaris.recipe.stage import close_stage, dropped_by, open_stage, without
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted
from polaris.run.context import TrainContext
from polaris.run.loop import Recorder, train_to
from polaris.run.prompt_table import write_prompts
from polaris.types import Prompt


def run(context: TrainContext, folder: RunFolder, state: TrainState, recorder: Recorder) -> TrainState:
    """Difficulty pass -> curation -> (temperature probe -> training -> drop easy prompts) per stage, or until a stop is requested.

    Raises:
        CurationError: too few prompts teach anything; nothing was trained.
    """
    try:
        context = prepare_prompts(context, folder, state)
        _write_prompts(context, folder, state.step)
        for stage in plan_stages(context.config):
            dropped = dropped_by(stage, folder.stages)
            if dropped is None and state.step > stage.end:
                raise Refused(f"{stage.result(folder.stages).path} is gone, and cannot be made again at step {state.step}; restore it")
            if dropped is None or state.step < stage.end:
                opened = open_stage(context, stage, state, folder.stages)
                state = train_to(stage.end, opened, folder, state, recorder)
                if state.step < stage.end or context.sampling.world.any(context.sampling.stop.requested()):
                    return state  # at its last step a stopped stage stays open: its evaluation may be missing
                dropped = close_stage(opened, stage, folder.stages)
                _write_prompts(context, folder, state.step)
            context = _with_prompts(context, without(context.source.prompts, dropped))
    except GenerationInterrupted:
        context.console.note("stop requested: what this phase has finished is on disk, and the same command goes on from there")
    return state


def prepare_prompts(context: TrainContext, folder: RunFolder, state: TrainState) -> TrainContext:
    """The context with the prompts that curation keeps; their pass rates begin with those of the difficulty pass.

    Once training has begun, the prompts stay those that were chosen then, because another choice would change the epoch.
    """
    prompts = context.source.prompts
    if not context.config.difficulty.samples_per_prompt:
        return context
    if state.step and (chosen := Result(folder.stages / "curation.json").read("dropped")) is not None:
        return _with_prompts(context, without(prompts, chosen["dropped"]))
    if state.step > 0 and context.config.difficulty.column is None:  # these weights cannot measure it again
        Result(folder.stages / "difficulty.json", remedy="restore it, or run `polaris difficulty` with this configuration").read_existing()
    measured = measure_difficulty(context.sampling, prompts, folder.stages)
    curation = curate_prompts(context.sampling, prompts, measured, folder.stages)
    if state.step == 0:
        context.pass_rates.restore(measured)
        context.statistics.begin(measured.counts)
        context.statistics.begin_lengths(read_lengths(folder.stages / "difficulty.parquet"))
        for prompt_id, counts in read_results(folder.stages / "difficulty.parquet").items():
            context.results.add_counts(prompt_id, counts)
    return _with_prompts(context, curation.prompts)


def _write_prompts(context: TrainContext, folder: RunFolder, step: int) -> None:
    if context.sampling.world.is_main:
        write_prompts(context, folder, step)


def _with_prompts(context: TrainContext, prompts: tuple[Prompt, ...]) -> TrainContext:
    return replace(context, source=replace(context.source, prompts=prompts))
