"""What a run has left in its folder so far, read for the report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polaris.errors import Refused
from polaris.observe.metrics import read_records

MAX_STEPS_WITH_ROLLOUTS = 6
MAX_ROLLOUTS_PER_STEP = 8

Result = Mapping[str, Any]
"""The JSON object that a phase of the recipe has written under `stages/`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Stage `number`, counted from 1, was trained from after step `first` up to step `last`."""

    number: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """None and empty collections stand for what is not there (yet)."""

    name: str
    config: Result | None
    """The settings alone."""
    origin: Result | None
    """The run, step and part that this run began with."""
    history: Sequence[Mapping[str, Any]]
    """What was changed when the run was resumed, oldest first."""
    records: Sequence[dict[str, Any]]
    rollouts: Sequence[Mapping[str, Any]]
    difficulty: Result | None
    curation: Result | None
    temperatures: Mapping[int, Result]
    """By number of the stage, from 1."""
    closings: Mapping[int, Result]
    """What each stage has dropped at its end, by its number."""
    evaluation: Result | None
    evaluation_page: str = ""
    """The page of its problems, from the run's folder; "" if there is none."""

    @property
    def last_evaluation(self) -> Mapping[str, Any] | None:
        """The record of the last evaluation on the held-out set."""
        return next((record for record in reversed(self.records) if record.get("eval/accuracy") is not None), None)

    @property
    def held_out_since(self) -> int:
        """The step after which the present held-out prompts are evaluated: -1, or when they were last changed."""
        changes = [(entry["step"], change) for entry in self.history for change in entry["changes"]]
        return max((step for step, change in changes if change.startswith("eval.path: ")), default=-1)

    @property
    def spans(self) -> list[Span]:
        """The stages that have records, in order; none for a run without stages."""
        ends: dict[int, int] = {}
        for record in self.records:
            if "stage" in record:
                ends[record["stage"] + 1] = max(record["step"], ends.get(record["stage"] + 1, 0))
        first, spans = 0, []
        for number, last in sorted(ends.items()):
            spans.append(Span(number=number, first=first, last=last))
            first = last
        return spans


def read_run(folder: Path) -> RunFiles:
    """Everything of a run's folder that the report shows.

    Raises `ValueError` if there is no such folder or a line of metrics or rollouts is damaged.
    """
    if not (folder / "config.json").is_file() and not (folder / "metrics.jsonl").is_file():
        raise Refused(f"{folder} is not the folder of a training run; give the one that holds config.json and metrics.jsonl")
    stages, config = folder / "stages", _object(folder / "config.json")
    newest = _newest(stages / "evaluation")
    beside = {name: config.pop(name, None) for name in ("content", "origin", "history")} if config else {}
    return RunFiles(
        name=str((config or {}).get("name", folder.resolve().name)),
        config=config,
        origin=beside.get("origin"),
        history=beside.get("history") or (),
        records=read_records(folder / "metrics.jsonl"),
        rollouts=_rollouts(folder / "rollouts"),
        difficulty=_object(stages / "difficulty.json"),
        curation=_object(stages / "curation.json"),
        temperatures=_numbered(stages, "temperature"),
        closings=_numbered(stages, "stage"),
        evaluation=_object(newest / "result.json") if newest else None,
        evaluation_page=(newest / "result.html").relative_to(folder).as_posix() if newest and (newest / "result.html").is_file() else "",
    )


def _object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _newest(evaluations: Path) -> Path | None:
    """The folder of the last step that was evaluated."""
    return next((path.parent for path in sorted(evaluations.glob("step-*/result.json"), reverse=True) if _object(path)), None)


def _numbered(stages: Path, name: str) -> dict[int, Result]:
    """`<name>-<number>.json`, in the order of the numbers."""
    found = {int(match[1]): path for path in stages.glob(f"{name}-*.json") if (match := re.fullmatch(rf"{name}-(\d+)\.json", path.name))}
    results = {number: _object(found[number]) for number in sorted(found)}
    return {number: result for number, result in results.items() if result is not None}


def _rollouts(folder: Path) -> list[dict[str, Any]]:
    """The first and the last recorded step and some between them."""
    files = sorted(folder.glob("step-*.jsonl"))
    if len(files) > MAX_STEPS_WITH_ROLLOUTS:
        last = MAX_STEPS_WITH_ROLLOUTS - 1
        files = [files[round(index * (len(files) - 1) / last)] for index in range(MAX_STEPS_WITH_ROLLOUTS)]
    return [rollout for path in files for rollout in read_records(path)[:MAX_ROLLOUTS_PER_STEP]]
