"""The sampling temperature of a stage of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polaris.recipe.plan import Stage, plan_stages, stage_config
from polaris.recipe.temperature import COMPARED, TemperatureProbe, probe_temperature, prompts_of, read_once, retune
from polaris.recipe.temperature_table import table
from polaris.results import Result
from polaris.run.context import TrainContext
from polaris.types import Prompt


def stage_temperature(context: TrainContext, stage: Stage, stages: Path, begun: bool) -> float:
    """The temperature of `stage`: as configured, or measured with the weights that the engine serves now.

    In the first stage, "probe" is the whole probe. In a later one it is the temperature that restores the diversity of the previous
    stage's start, if that was measured in the same way. A previous stage with a number has its diversity measured at its start for this.
    The prompts are the held-out ones, or without a held-out set those of training, of which some were dropped between the stages.
    A stage that has `begun` keeps its temperature and is not measured, because its weights are no longer those of its start.

    Raises:
        ValueError: the result of a stage that has begun is gone.
        NoAccuracy: the accuracy cannot be told from 0 at any temperature.
        GenerationInterrupted: a stop was requested.
    """
    plan = plan_stages(context.config)
    given = stage.temperature
    temperature = context.config.rollout.temperature if given == "probe" else given
    if begun and given == "probe":
        decided = Result(stage.temperature_result(stages), remedy="restore it, or give the stage a number")
        return float(decided.read_existing("temperature")["temperature"])
    if begun or (given != "probe" and not any(later.temperature == "probe" for later in plan[stage.index + 1 : stage.index + 2])):
        return temperature
    prompts = context.held_out or context.source.prompts
    before = _to_restore(context, plan[stage.index - 1], prompts, stages) if stage.index and given == "probe" else None
    own = stage_config(context.config, stage, temperature).rollout.max_response_tokens
    # Longer responses repeat more, so diversity is compared at one length; and in one kind.
    max_tokens, kind = (before["settings"][key] for key in ("max_response_tokens", "diversity")) if before else (own, None)
    probe = TemperatureProbe(context.sampling, prompts, max_tokens, stage.temperature_result(stages), kind=kind)
    if given != "probe":
        result = read_once(probe, temperature)
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
    if before.temperature != "probe":  # it may have been measured before the stage was given a number
        depends_on["temperature"] = before.temperature
    result = Result(before.temperature_result(stages), depends_on)
    content = result.read("settings", "temperature", "diversity")
    if content is not None and not (changes := result.changes(content)):
        return content
    why = "was not measured" if content is None else f"was measured with other settings ({changes})"
    context.console.note(f"stage {before.index + 2} probes the whole grid: how diverse stage {before.index + 1} began {why}")
    return None
