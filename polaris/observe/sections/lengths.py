"""How long responses are, and how good at which length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.algorithm.lengths import BUCKETS
from polaris.observe import charts
from polaris.observe.markup import figures, folded, note, percent, section, table
from polaris.observe.run_files import RunFiles
from polaris.observe.sections.stages import stage_records

Buckets = list[tuple[float, float, float]]
"""Responses, correct ones and cut off ones of the buckets of `polaris.algorithm.lengths`."""


def lengths(run: RunFiles) -> str:
    """Responses by length, per stage of training and for the first and the last evaluation."""
    groups = [(f"Stage {span.number}, steps {span.first + 1} to {span.last}", "response", stage_records(run, span)) for span in run.spans]
    evaluated = [record for record in run.records if "eval/response/limit" in record]
    for record in evaluated[:1] + evaluated[1:][-1:]:
        groups.append((f"Evaluation at step {record['step']}", "eval/response", [record]))
    found = [(title, prefix, measured) for title, prefix, records in groups if (measured := [r for r in records if f"{prefix}/limit" in r])]
    if not found:
        return ""
    pictures = [charts.lengths(title, _buckets(records, prefix), records[-1][f"{prefix}/limit"]) for title, prefix, records in found]
    tables = [f"<h3>{title}</h3>{_table(_buckets(records, prefix), records[-1][f'{prefix}/limit'])}" for title, prefix, records in found]
    explained = note("Responses by their length in tokens, in eighths of the limit; the number above a bar is their accuracy.")
    return section("Response lengths", figures(*map(charts.svg, pictures)), explained, folded("As tables", "".join(tables)))


def _buckets(records: Sequence[dict[str, Any]], prefix: str) -> Buckets:
    sums = []
    for k in range(1, BUCKETS + 1):
        key = f"{prefix}/bucket_{k}"
        sizes = [record.get(f"{key}/responses") or 0 for record in records]
        correct, cut = (
            sum(size * (record.get(f"{key}/{share}") or 0.0) for size, record in zip(sizes, records, strict=True))
            for share in ("accuracy", "clip_ratio")
        )
        sums.append((sum(sizes), correct, cut))
    return sums


def _table(buckets: Buckets, limit: int) -> str:
    everything = sum(size for size, _, _ in buckets)
    rows = [
        (
            f"{(k - 1) * limit / BUCKETS:,.0f} to {k * limit / BUCKETS:,.0f}",
            f"{size:,}",
            percent(size / everything),
            percent(correct / size if size else None),
            percent(cut / size if size else None),
        )
        for k, (size, correct, cut) in enumerate(buckets, start=1)
    ]
    return table(("tokens", "responses", "share", "accuracy", "cut off"), rows)
