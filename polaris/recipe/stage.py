"""Begin and end a stage: its temperature, its prompts, its cursor, and the easy prompts that are dropped at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from polaris.algorithm.track import begin
from polaris.checkpoint.store import TrainState
from polaris.data.sampler import open_sampler, parts_of_epoch, weights_of
from polaris.recipe.plan import Stage, stage_config
from polaris.recipe.stage_temperature import stage_temperature
from polaris.run.context import TrainContext
from polaris.types import Prompt


def open_stage(context: TrainContext, stage: Stage, state: TrainState, stages: Path) -> TrainContext:
    """The context of the stage. Its temperature is measured if the configuration asks for it and there is no result yet.

    `context.source.prompts` are those that earlier stages kept. A stage begins with a new epoch; a resumed one continues at its cursor.

    Raises:
        GenerationInterrupted: a stop was requested during the probe.
    """
    begun = state.step > stage.start
    temperature = stage_temperature(context, stage, stages, begun)
    config = stage_config(context.config, stage, temperature)
    tracker = context.tracker
    if stage.temperature != "track":
        tracker.track = None
    elif not begun:
        tracker.track = begin(temperature, config.probe.temperatures)
    sampler = open_sampler(context.source.prompts, config, context.statistics)
    if begun:
        sampler.restore(state.sampler)
    elif stage.start:  # or it would begin with the order of the stage before
        sampler.restore({"epoch": state.sampler["epoch"] + 1, "cursor": 0})
    context.successes.keep(prompt.id for prompt in context.source.prompts)
    context.results.keep(prompt.id for prompt in context.source.prompts)
    if not begun:  # the epoch is new; only a stage that --change has shortened can have left something
        context.source.carried.keep(())
    opened = context.with_config(config)
    return replace(opened, source=replace(opened.source, sampler=sampler, last=stage.end), stage=stage.index)


def close_stage(context: TrainContext, stage: Stage, stages: Path) -> list[str]:
    """Ids of the prompts that are too easy for the next stage: their running pass rate is above `stage.drop_above`."""
    done = dropped_by(stage, stages)
    if done is not None:
        return done
    dropped = easiest(context, stage.settings.drop_above)
    context.sampling.world.barrier()
    if context.sampling.world.is_main:
        left = len(context.source.prompts) - len(dropped)
        content = {
            "step": stage.end,
            "drop_above": stage.settings.drop_above,
            "dropped": dropped,
            "left": left,
            "temperature": context.temperature,
        }
        stage.result(stages).write(content)
        full = "" if left > context.config.prompts_begun else ", one step, the least that is kept"
        if context.config.stage:  # a run without [[stage]] is one that nobody has named
            context.console.note(
                f"stage {stage.index + 1} ends: {len(dropped)} prompts above {stage.settings.drop_above:g} dropped, {left} left{full}"
            )
    context.sampling.world.barrier()
    return dropped


def dropped_by(stage: Stage, stages: Path) -> list[str] | None:
    """Ids that were dropped at the stage's end; None if it has not ended, or ended at another step than it would now."""
    content = stage.result(stages).read_if_valid("dropped")
    return list(content["dropped"]) if content else None


def easiest(context: TrainContext, drop_above: float) -> list[str]:
    """Ids with a pass rate above `drop_above`, easiest first; enough prompts for one step are always kept, in the sets' proportion."""
    known = {prompt.id: context.pass_rates.rate(prompt.id) for prompt in context.source.prompts}
    rates = {prompt_id: rate for prompt_id, rate in known.items() if rate is not None and rate > drop_above}
    candidates = sorted(rates, key=lambda prompt_id: (-rates[prompt_id], prompt_id))
    set_of = {prompt.id: prompt.set for prompt in context.source.prompts}
    left, weights = Counter(set_of.values()), weights_of(context.config)
    for place, prompt_id in enumerate(candidates):
        left[set_of[prompt_id]] -= 1
        if sum(parts_of_epoch(+left, weights).values()) < context.config.prompts_begun:
            return candidates[:place]
    return candidates


def without(prompts: Sequence[Prompt], dropped: Collection[str]) -> tuple[Prompt, ...]:
    """The prompts whose ids are not among `dropped`, in their order."""
    gone = frozenset(dropped)
    return tuple(prompt for prompt in prompts if prompt.id not in gone)
