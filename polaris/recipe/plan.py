"""Where each stage of a run begins and ends, and the configuration it trains with; pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

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
    max_response_tokens: int
    temperature: float | Literal["probe", "track"]

    def result(self, folder: Path) -> Result:
        """The record of the stage's end, valid while the stage ends at the same step; its file is numbered from 1."""
        return Result(folder / f"stage-{self.index + 1}.json", {"step": self.end})

    def last_temperature(self, folder: Path, remedy: str) -> float:
        """The sampling temperature with which the closed stage ended; `remedy` is for a result that is gone."""
        if isinstance(self.temperature, float | int):
            return self.temperature
        path = self.temperature_result(folder) if self.temperature == "probe" else self.result(folder).path
        return float(Result(path, remedy=remedy).read_existing("temperature")["temperature"])

    def temperature_result(self, folder: Path) -> Path:
        """Where its temperature probe is written."""
        return folder / f"temperature-{self.index + 1}.json"


def plan_stages(config: RunConfig) -> list[Stage]:
    """All stages in their order."""
    stages, start = [], 0
    for index, settings in enumerate(config.stages):
        temperature, tokens = config.sampling(settings)
        end = start + settings.steps
        stages.append(Stage(index=index, start=start, end=end, settings=settings, max_response_tokens=tokens, temperature=temperature))
        start = end
    return stages


def stage_config(config: RunConfig, stage: Stage, temperature: float) -> RunConfig:
    """The run's configuration with the stage's response length and temperatures."""
    rollout = replace(config.rollout, temperature=temperature, max_response_tokens=stage.max_response_tokens)
    own = stage.settings.eval_temperature
    return replace(config, rollout=rollout, eval=config.eval if own is None else replace(config.eval, temperature=own))
