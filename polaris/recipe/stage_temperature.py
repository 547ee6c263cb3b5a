"""The sampling temperature of a stage of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polaris.errors import Refused
from polaris.recipe.plan import Stage, plan_stages
from polaris.recipe.temperature import COMPARED, TemperatureProbe, probe_temperature, prompts_of, read_once, retune
from polaris.recipe.temperature_table import table
from polaris.results import Result
from polaris.run.context import TrainContext
from polaris.types import Prompt


def stage_temperature(context: TrainContext, stage: Stage, stages: Path, begun: bool) -> float:
    """The temperature with which `stage` begins: as configured, or measured with the weights that the engine serves now.

    In the first stage, "probe" is the whole probe. In a later one it is the temperature that restores the diversity of the previous
    stage's start, if that was measured in the same way. A previous stage with a number has its diversity measured at its start for this.
    "track" begins as "probe" does in the first stage, and in a later one where the stage before ended.
    The prompts are the held-out ones, or without a held-out set those of training, of which some were dropped between the stages.
    A stage that has `begun` keeps its temperature and is not measured, because its weights are no longer those of its start.

    Raises:
        ValueError: the result of a stage that has begun is gone; or it has begun without "track".
        NoAccuracy: the accuracy cannot be told from 0 at any temperature.
        GenerationInterrupted: a stop was requested.
    """
    plan = plan_stages(context.config)
    given = stage.temperature
    if given == "track":
        if begun and context.tracker.track is None:
            raise Refused(f'stage {stage.index + 1} has begun with one temperature; "track" can begin with a later stage')
        if begun and context.tracker.track:
            return context.tracker.track.start
        given = plan[stage.index - 1].last_temperature(stages, "restore it, or give the stage a number") if stage.index else "probe"
    if begun and given == "probe":
        decided = Result(stage.temperature_result(stages), remedy="restore it, or give the stage a number")
        return float(decided.read_existing("temperature")["temperature"])
    if given != "probe" and (begun or not any(later.temperature == "probe" for later in plan[stage.index + 1 : stage.index + 2])):
        return given
    prompts = context.held_out or context.source.prompts
    before = _to_restore(context, plan[stage.index - 1], prompts, stages) if stage.index and given == "probe" else None
    # Longer responses repeat more, so diversity is compared at one length; and in one kind.
    max_tokens, kind = (
        (before["settings"][key] for key in ("max_response_tokens", "diversity")) if before else (stage.max_response_tokens, None)
    )
    probe = TemperatureProbe(context.sampling, prompts, max_tokens, stage.temperature_result(stages), kind=kind)
    if given != "probe":
        result = read_once(probe, given)
    elif before is None:
        result = probe_temperature(probe)
    else:
        if before["settings"]["digest"] != probe.settings["digest"]:
            context.console.warning("the diversity to restore was measured on other prompts; a held-out set (eval.path) stays the same")
        result = retune(probe, before["temperature"], before["diversity"])
    for text in [f"stage {stage.index + 1}: temperature {result['temperature']:g} ({result['source']})", *table(result)]:
        context.console.note(text)
    return float(result["temperature"])


def _to_restore(context: TrainContext, before: Stage, prompts: Sequence[Prompt], stages: Path) -> dict[str, Any] | None:
    """The result of the stage `before` if its diversity can be compared with a reading now; else None, with a note on the console."""
    probe = context.config.probe
    depends_on: dict[str, Any] = {"compared": COMPARED, "prompts": len(prompts_of(context.config, prompts))}
    if probe.diversity != "auto":
        depends_on["diversity"] = probe.diversity
    if not isinstance(before.temperature, str):  # it may have been measured before the stage was given a number
        depends_on["temperature"] = before.temperature
    result = Result(before.temperature_result(stages), depends_on)
    content = result.read("settings", "temperature", "diversity")
    if content is not None and not (changes := result.changes(content)):
        return content
    why = "was not measured" if content is None else f"was measured with other settings ({changes})"
    context.console.note(f"stage {before.index + 2} probes the whole grid: how diverse stage {before.index + 1} began {why}")
    return None
