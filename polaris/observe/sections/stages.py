"""The stages of training, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.observe.markup import note, percent, section, table
from polaris.observe.run_files import RunFiles, Span

_HEAD = ("stage", "steps", "limit", "temperature", "held-out", "training", "mean length", "cut off", "prompts dropped", "left")


def stages(run: RunFiles) -> str:
    """One row per stage."""
    if not run.spans:
        return ""
    explained = "Held-out accuracy of the first and the last evaluation; training accuracy, length and cut off are means over the steps."
    return section("Stages", table(_HEAD, [_row(run, span) for span in run.spans]), note(explained))


def stage_records(run: RunFiles, span: Span) -> list[dict[str, Any]]:
    """The records that say what happened in the stage; the evaluation at its start is the last one of the stage before."""
    return [record for record in run.records if span.first < record["step"] <= span.last or record["step"] == span.first == 0]


def _row(run: RunFiles, span: Span) -> Sequence[str]:
    records = stage_records(run, span)
    start = [record for record in run.records if record["step"] == span.first]
    accuracy = [record["eval/accuracy"] for record in [*start, *records] if record.get("eval/accuracy") is not None]
    temperatures = [record["rollout/temperature"] for record in records if record.get("rollout/temperature") is not None]
    limit = _last(records, "response/limit")
    source = run.temperatures.get(span.number, {}).get("source")
    closing = run.closings.get(span.number)
    return (
        str(span.number),
        f"{span.first + 1} to {span.last}",
        "-" if limit is None else f"{limit:,}",
        _way(temperatures) + (f" ({source})" if source in ("probe", "retune") else ""),
        " to ".join(map(percent, accuracy[:1] + accuracy[1:][-1:])) or "-",
        percent(_mean(records, "reward/accuracy")),
        "-" if (length := _mean(records, "response/length_mean")) is None else f"{length:,.0f}",
        percent(_mean(records, "response/clip_ratio")),
        "-" if closing is None else f"{len(closing['dropped']):,} (above {closing['drop_above']:g})",
        "-" if closing is None else f"{closing['left']:,}",
    )


def _way(temperatures: Sequence[float]) -> str:
    """The first and the last, where they are two."""
    return " to ".join(dict.fromkeys(f"{at:g}" for at in (*temperatures[:1], *temperatures[-1:]))) or "-"


def _mean(records: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [record[key] for record in records if record.get(key) is not None]
    return sum(values) / len(values) if values else None


def _last(records: Sequence[dict[str, Any]], key: str) -> Any:
    return next((record[key] for record in reversed(records) if record.get(key) is not None), None)
