"""`carried.parquet` in a checkpoint: a row for each response that a step has left, and one for a prompt without any."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polaris.types import Rollout, ScoredRollout, Verdict

FILE = "carried.parquet"
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "step": pa.int64(),
        "sample": pa.int64(),
        "tokens": pa.large_list(pa.int32()),
        "logprobs": pa.large_list(pa.float32()),
        "versions": pa.large_list(pa.int32()),
        "finish_reason": pa.string(),
        "temperature": pa.float64(),
        "seed": pa.int64(),
        "text": pa.large_string(),
        "verdict": pa.large_string(),
    }
)
"""`sample` and all after it are null for a prompt without responses, `text` and `verdict` (JSON) for one that was cut off."""

_ARRAYS = ("tokens", "logprobs", "versions")

Row = tuple[str, int, tuple[ScoredRollout, ...], tuple[Rollout, ...]]
"""A prompt, the step that began it, its graded responses and those that were cut off."""


def write(folder: Path, prompts: Iterable[Row]) -> None:
    """Write the file if there are any prompts."""
    rows: list[dict[str, Any]] = []
    for prompt_id, step, scored, begun in prompts:
        place = {"id": prompt_id, "step": step}
        rows += [place | _row(one.rollout) | {"text": one.text, "verdict": json.dumps(asdict(one.verdict))} for one in scored]
        rows += [place | _row(rollout) for rollout in begun]
        rows += [] if scored or begun else [place]
    if rows:
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), folder / FILE)


def read(folder: Path) -> list[Row]:
    """What `write` wrote, in its order; nothing without the file."""
    if not (folder / FILE).is_file():
        return []
    found: dict[tuple[str, int], tuple[list[ScoredRollout], list[Rollout]]] = {}
    table = pq.read_table(folder / FILE)
    columns = {name: [np.array(row.values) if row.is_valid else None for row in table[name]] for name in _ARRAYS}
    for place, row in enumerate(table.drop_columns(list(_ARRAYS)).to_pylist()):
        row |= {name: column[place] for name, column in columns.items()}
        scored, begun = found.setdefault((row["id"], row["step"]), ([], []))
        if row["verdict"] is not None:
            scored.append(ScoredRollout(rollout=_rollout(row), text=row["text"], verdict=_verdict(json.loads(row["verdict"]))))
        elif row["sample"] is not None:
            begun.append(_rollout(row))
    return [(prompt_id, step, tuple(scored), tuple(begun)) for (prompt_id, step), (scored, begun) in found.items()]


def _row(rollout: Rollout) -> dict[str, Any]:
    names = ("sample", "tokens", "logprobs", "versions", "finish_reason", "temperature", "seed")
    return {name: getattr(rollout, name) for name in names}


def _rollout(row: dict[str, Any]) -> Rollout:
    return Rollout(
        prompt_id=row["id"],
        sample=row["sample"],
        tokens=row["tokens"],
        logprobs=row["logprobs"],
        versions=row["versions"],
        finish_reason=row["finish_reason"],
        temperature=row["temperature"],
        seed=row["seed"],
    )


def _verdict(row: dict[str, Any]) -> Verdict:
    return Verdict(**row | {"parts": tuple(row["parts"]), "marked": tuple(row["marked"])})
