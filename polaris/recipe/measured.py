"""Files of the difficulty pass: a journal of finished parts while it runs, one parquet file and its numbers at the end."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polaris.data.selection import fewer_verdicts, histogram, informative
from polaris.files import write_atomically
from polaris.observe.metrics import read_records
from polaris.results import Result
from polaris.reward import no_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One prompt: `passed` of `count` verdicts; `lost` more responses have none. `tokens` and `clipped` are sums over all responses."""

    id: str
    passed: int
    count: int
    lost: int
    tokens: int
    clipped: int
    no_answer: dict[str, int] = field(default_factory=dict)
    """Responses without an answer, by the reason."""
    results: dict[str, int] = field(default_factory=dict)
    """Correct responses by the intermediate results that they mark (`reward.process`)."""

    @property
    def responses(self) -> int:
        """Number that was drawn."""
        return self.count + self.lost

    def __add__(self, more: Measured) -> Measured:
        """With `more` responses to the same prompt."""
        sums = {name: getattr(self, name) + getattr(more, name) for name in ("passed", "count", "lost", "tokens", "clipped")}
        missing, results = (
            dict(Counter(one) + Counter(two)) for one, two in ((self.no_answer, more.no_answer), (self.results, more.results))
        )
        return Measured(id=self.id, **sums, no_answer=missing, results=results)


class Journal:
    """The finished parts of a running pass: a line of settings, then one line per part. An incomplete last line is dropped.

    Every rank reads it, one writes. Raises `ValueError` if the file belongs to a pass with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, write: bool) -> None:
        lines = read_records(path) or [dict(settings)]
        Result(path, settings).refuse_changes(lines[0])
        self._path, self._write, self._parts = path, write, lines[1:]
        if write:
            write_atomically(path, b"".join(map(_line, lines)))

    @property
    def rows(self) -> dict[str, Measured]:
        """What is measured, by id."""
        return {row["id"]: Measured(**row) for part in self._parts for row in part["rows"]}

    @property
    def seconds(self) -> float:
        """Time that the finished parts took, over all interruptions."""
        return float(sum(part["seconds"] for part in self._parts))

    def append(self, rows: Sequence[Measured], seconds: float) -> None:
        """Add a part; durable when this returns on the rank that writes."""
        part = {"seconds": seconds, "rows": [asdict(row) for row in rows]}
        self._parts.append(part)
        if self._write:
            with self._path.open("ab") as file:
                file.write(_line(part))
                file.flush()
                os.fsync(file.fileno())


def numbers(rows: Sequence[Measured], samples: int, seconds: float | None) -> dict[str, Any]:
    """Numbers of a pass with `samples` responses per prompt at most. Without `seconds` nothing was drawn: no lengths and costs."""
    passes = [(row.passed, row.count) for row in rows]
    counts = histogram(passes, samples)
    responses, tokens = sum(row.responses for row in rows), sum(row.tokens for row in rows)
    found = {
        "prompts": len(rows),
        "samples_per_prompt": samples,
        "histogram": {f"{k}/{samples}": count for k, count in enumerate(counts)},
        "informative": informative(passes),
        "informative_share": informative(passes) / len(rows),
        "accuracy": sum(row.passed for row in rows) / max(1, sum(row.count for row in rows)),
        "lost_verdicts": sum(row.lost for row in rows),
        "prompts_without_verdict": len(rows) - sum(counts),
        "prompts_with_fewer_verdicts": fewer_verdicts(passes, samples),
    }
    if seconds is not None:
        found |= no_answer.metrics(missing(rows), responses, "no_answer")
        found |= {"response_length_mean": tokens / responses, "clip_share": sum(row.clipped for row in rows) / responses}
        found |= {"responses": responses, "tokens": tokens, "seconds": seconds}
    return found


def missing(rows: Iterable[Measured]) -> dict[str, int]:
    """Responses without an answer, by the reason, the most frequent first."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.no_answer)
    return dict(total.most_common())


def save_measured(path: Path, rows: Sequence[Measured], *, drawn: bool) -> None:
    """Parquet, one row per prompt: id, passed, count, lost; if responses were drawn, response_length_mean (tokens) and clip_share; with a
    process reward also results, and result_counts, the correct responses that mark each of them."""
    columns = {
        "id": pa.array([row.id for row in rows], pa.string()),
        "passed": pa.array([row.passed for row in rows], pa.int64()),
        "count": pa.array([row.count for row in rows], pa.int64()),
        "lost": pa.array([row.lost for row in rows], pa.int64()),
    }
    if drawn:
        columns["response_length_mean"] = pa.array([row.tokens / row.responses for row in rows], pa.float64())
        columns["clip_share"] = pa.array([row.clipped / row.responses for row in rows], pa.float64())
    if any(row.results for row in rows):
        columns["results"] = pa.array([list(row.results) for row in rows], pa.list_(pa.string()))
        columns["result_counts"] = pa.array([list(row.results.values()) for row in rows], pa.list_(pa.int64()))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    write_atomically(path, buffer.getvalue())


def read_results(path: Path) -> dict[str, dict[str, int]]:
    """By prompt id, marked results and the correct responses that have them; {} if the pass had no process reward, or drew nothing."""
    if not path.is_file() or "results" not in pq.read_schema(path).names:
        return {}
    rows = pq.read_table(path, columns=["id", "results", "result_counts"]).to_pylist()
    return {row["id"]: dict(zip(row["results"], row["result_counts"], strict=True)) for row in rows}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
