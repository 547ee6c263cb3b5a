"""Rows of a file of responses: finding the columns of response, gold answer, reference verdict and id, and reading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polaris.data.gold import read_answers, shortened
from polaris.data.sources import FILE_FORMATS, nested, read_rows
from polaris.errors import Refused
from polaris.reward.grade import accepted
from polaris.types import GroundTruth

RESPONSE = ("response", "responses", "completion", "completions", "resps", "output", "outputs", "generation", "generations", "prediction")
GROUND_TRUTH = ("ground_truth", "reward_model.ground_truth", "target", "gold", "answer")
REFERENCE = ("reference", "graded", "correct", "is_correct", "expected", "verdict", "verdicts", "exact_match", "acc")
ID = ("id", "doc_id", "extra_info.id", "extra_info.index")
_TRUE = frozenset({"correct", "true", "pass", "passed", "right", "yes", "1", "1.0"})
_FALSE = frozenset({"wrong", "incorrect", "false", "fail", "failed", "no", "0", "0.0", "no_answer", "ungradable"})
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of columns. None means the first known name that the first row has; `reference` "" means none."""

    response: str | None = None
    ground_truth: str | None = None
    reference: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRow:
    """`source` is `file:row`; `id` is "" if the row has none; `references` says for each response whether another grader found it
    correct, None without such verdicts."""

    source: str
    id: str
    responses: tuple[str, ...]
    ground_truth: GroundTruth
    references: tuple[bool, ...] | None
    row: dict[str, Any]


def read_responses(path: Path, columns: Columns) -> list[ResponseRow]:
    """All rows of a .jsonl, .json or .parquet file.

    A row without the gold column, or with null in it, has no answer. Raises `ValueError` for a missing, unreadable or empty file,
    a missing column (naming the others), values of another type (naming the row), and a gold column without any answer.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise Refused(f"{path} {what}; give a {', '.join(FILE_FORMATS)} file of responses")
    rows = list(read_rows(str(path), "train"))
    found = _choose(columns, *rows[0])
    assert found.ground_truth
    if all(_value(row, found.ground_truth) is _MISSING for _, row in rows):
        _need(rows[0][1], found.ground_truth, rows[0][0], "ground-truth")
    responses = [_read(source, row, found) for source, row in rows]
    if not any(accepted(row.ground_truth) for row in responses):
        raise Refused(f"{path}: no row has a gold answer in `{found.ground_truth}`; name another column with --ground-truth")
    return responses


def _choose(columns: Columns, source: str, row: dict[str, Any]) -> Columns:
    return Columns(
        response=columns.response or _detect(row, RESPONSE, source, "response"),
        ground_truth=columns.ground_truth or _detect(row, GROUND_TRUTH, source, "ground-truth"),
        reference=next((name for name in REFERENCE if _value(row, name) is not _MISSING), "")
        if columns.reference is None
        else columns.reference,
        id=columns.id or next((name for name in ID if _value(row, name) is not _MISSING), None),
    )


def _detect(row: dict[str, Any], names: Sequence[str], source: str, option: str) -> str:
    found = next((name for name in names if _value(row, name) is not _MISSING), None)
    if found is None:
        raise Refused(f"{source} has none of the columns {', '.join(names)} but {_names(row)}; name the right one with --{option}")
    return found


def _read(source: str, row: dict[str, Any], columns: Columns) -> ResponseRow:
    assert columns.response
    assert columns.ground_truth
    responses = _responses(_need(row, columns.response, source, "response"), source, columns.response)
    references = None
    if columns.reference:
        references = _references(_need(row, columns.reference, source, "reference"), source, columns.reference, len(responses))
    gold = _value(row, columns.ground_truth)
    return ResponseRow(
        source=source,
        id=str(_need(row, columns.id, source, "id")) if columns.id else "",
        responses=responses,
        ground_truth=() if gold is _MISSING else read_answers(gold, source),
        references=references,
        row=row,
    )


def _responses(value: Any, source: str, column: str) -> tuple[str, ...]:
    """From one text, a list of texts, or lists in a list (lm-evaluation-harness's `resps`)."""
    items = value if isinstance(value, list) else [value]
    flat = [text for item in items for text in (item if isinstance(item, list) else [item])]
    if not flat or not all(isinstance(text, str) for text in flat):
        raise Refused(f"{source}: `{column}` is {shortened(repr(value), 80)}; expected a text, or a list of one or more texts")
    return tuple(flat)


def _references(value: Any, source: str, column: str, count: int) -> tuple[bool, ...] | None:
    if value is None:
        return None
    items = value if isinstance(value, list) else [value]
    verdicts = [_truth(item["verdict"] if isinstance(item, dict) and "verdict" in item else item) for item in items]
    known = tuple(verdict for verdict in verdicts if verdict is not None)
    if len(known) != len(verdicts):
        raise Refused(
            f"{source}: `{column}` is {shortened(repr(value), 80)}; expected true, false, 1, 0 or a word such as correct or wrong "
            "(another column: --reference NAME; none: --reference '')"
        )
    if len(known) != count:
        raise Refused(f"{source}: `{column}` has {len(known)} verdicts for {count} responses; give one each, or --reference ''")
    return known


def _truth(value: Any) -> bool | None:
    word = str(value).strip().lower()
    if not isinstance(value, str | int | float):
        return None
    return True if word in _TRUE else False if word in _FALSE else None


def _need(row: dict[str, Any], name: str, source: str, option: str) -> Any:
    value = _value(row, name)
    if value is _MISSING:
        raise Refused(f"{source} has no column `{name}` but {_names(row)}; name another with --{option}")
    return value


def _value(row: dict[str, Any], name: str) -> Any:
    """The value of a column; a name with dots names a field in a column."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    found = nested(row.get(outer)) if dot else None
    return _value(found, inner) if isinstance(found, dict) else _MISSING


def _names(row: dict[str, Any]) -> str:
    return ", ".join(_paths(row)) or "none at all"


def _paths(row: dict[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        yield from (f"{name}.{inner}" for inner in value) if isinstance(value, dict) and value else (str(name),)
