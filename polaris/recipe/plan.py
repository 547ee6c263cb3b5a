"""Where each stage of a run begins and ends, and the configuration it trains with; pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig
from polaris.results import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Stage `index`, counted from 0, makes the steps after `start` up to `end`."""

    index: int
    start: int
    end: int
    settings: StageConfig

    def result(self, folder: Path) -> Result:
        """Its closing, below the run's `stages/`, which holds while it ends at the same step; numbered from 1, as people count."""
        return Result(folder / f"stage-{self.index + 1}.json", {"step": self.end})

    def temperature_result(self, folder: Path) -> Path:
        """Where its temperature probe is written."""
        return folder / f"temperature-{self.index + 1}.json"


def plan_stages(config: RunConfig) -> list[Stage]:
    """All stages in their order."""
    stages, start = [], 0
    for index, settings in enumerate(config.stages):
        stages.append(Stage(index=index, start=start, end=start + settings.steps, settings=settings))
        start += settings.steps
    return stages


def stage_config(config: RunConfig, stage: Stage, temperature: float) -> RunConfig:
    """The run's configuration with the stage's response length and temperatures."""
    settings = stage.settings
    rollout = replace(
        config.rollout, temperature=temperature, max_response_tokens=settings.max_response_tokens or config.rollout.max_response_tokens
    )
    return replace(config, rollout=rollout, eval=replace(config.eval, temperature=settings.eval_temperature or config.eval.temperature))
