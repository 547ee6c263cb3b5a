"""`prompts.parquet` in the run's folder: one row per prompt with all that the run knows of it, for the user to read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.schema import RunConfig
from polaris.data.pass_rates import read_passes
from polaris.data.prompt_statistics import Seen
from polaris.files import write_atomically
from polaris.results import Result
from polaris.run.context import TrainContext

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "set": pa.string(),
        "level": pa.string(),
        "offline_passed": pa.int64(),
        "offline_count": pa.int64(),
        "passed": pa.int64(),
        "count": pa.int64(),
        "recent_passed": pa.float64(),
        "recent_count": pa.float64(),
        "times_drawn": pa.int64(),
        "last_step": pa.int64(),
        "last_rate": pa.float64(),
        "response_length_mean": pa.float64(),
        "clip_share": pa.float64(),
        "dropped_at_stage": pa.int64(),
        "dropped_why": pa.string(),
    }
)
"""The columns; docs/runs.md explains them. What is not known of a prompt is null."""


def write_prompts(context: TrainContext, folder: RunFolder, step: int) -> None:
    """Write the table from the state of training after `step` and the results of the phases; one rank calls this."""
    counts, seen = context.pass_rates.counts, context.statistics.seen
    offline, dropped = _offline(folder), _dropped(folder, context.config)
    rows: list[dict[str, Any]] = []
    for prompt in context.all_prompts:
        row: dict[str, Any] = {"id": prompt.id, "set": prompt.set or None, "times_drawn": 0}
        if (level := prompt.row.get("level")) is not None:
            row["level"] = str(level)
        row |= dict(zip(("offline_passed", "offline_count"), offline.get(prompt.id, ()), strict=False))
        row |= dict(zip(("passed", "count"), counts.get(prompt.id, (0, 0)), strict=True))
        row |= dict(zip(("dropped_at_stage", "dropped_why"), dropped.get(prompt.id, ()), strict=False))
        if prompt.id in seen:
            row["recent_passed"], row["recent_count"] = context.statistics.recent(prompt.id, step)
        if prompt.id in seen and seen[prompt.id].times_drawn:
            row |= _of_training(seen[prompt.id])
        rows.append(row)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), buffer)
    write_atomically(folder.path / "prompts.parquet", buffer.getvalue())


def _of_training(seen: Seen) -> dict[str, Any]:
    return {
        "times_drawn": seen.times_drawn,
        "last_step": seen.last_step,
        "last_rate": seen.last_passed / seen.last_graded if seen.last_graded else None,
        "response_length_mean": seen.tokens / seen.responses,
        "clip_share": seen.clipped / seen.responses,
    }


def _offline(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """(passed, count) of the difficulty pass by id."""
    path = folder.stages / "difficulty.parquet"
    return read_passes(path) if path.is_file() else {}


def _dropped(folder: RunFolder, config: RunConfig) -> dict[str, tuple[int, str]]:
    """The stage at whose end a prompt was dropped, counted from 1, and the reason; 0 is curation, before the first stage."""
    curation = Result(folder.stages / "curation.json").read() or {"dropped": {}}
    found = {name: (0, reason) for name, reason in curation["dropped"].items()}
    return found | {name: (number, "easy") for number, names in _closings(folder, config) for name in names}


def _closings(folder: RunFolder, config: RunConfig) -> Iterator[tuple[int, list[str]]]:
    for number, end in enumerate(accumulate(stage.steps for stage in config.stages), start=1):
        if closing := Result(folder.stages / f"stage-{number}.json", {"step": end}).read_if_valid("dropped"):
            yield number, closing["dropped"]
