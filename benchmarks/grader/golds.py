"""The gold answers of the seven real sets, from `../shared/data`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
CASES, PAIRS = DATA / "grader_cases.jsonl", DATA / "grader_pairs_2.jsonl"
EVALUATION = ("aime24", "aime25", "amc23", "minerva", "olympiad")
TRAINING = ("deepscaler_aime", "deepscaler_math")
Answer = str | int | float


@dataclass(frozen=True, slots=True)
class Gold:
    """A row's accepted answers as the set gives them, none where it says null; `row` counts from 1."""

    set: str
    row: int
    answers: tuple[Answer, ...]


def golds_by_set() -> dict[str, list[Gold]]:
    """All rows of all sets. Raises `ValueError` where the data are absent."""
    if not DATA.is_dir():
        raise ValueError("the real sets are not at ../shared/data; these benchmarks need them")
    found = {}
    for name in EVALUATION:
        rows = parquet.read_table(DATA / "eval" / f"{name}.parquet").to_pylist()
        found[name] = [_gold(name, row, item["reward_model"]["ground_truth"]) for row, item in enumerate(rows, start=1)]
    for name in TRAINING:
        rows = json.loads((DATA / "train" / f"{name}.json").read_text(encoding="utf-8"))
        found[name] = [_gold(name, row, item["answer"]) for row, item in enumerate(rows, start=1)]
    return found


def texts() -> list[str]:
    """Every distinct gold answer that is text, without `$` and white space around it, in a fixed order."""
    found = (answer for golds in golds_by_set().values() for gold in golds for answer in gold.answers if isinstance(answer, str))
    return list(dict.fromkeys(text for answer in found if (text := answer.strip().strip("$").strip())))


def _gold(name: str, row: int, value: Answer | list[Answer] | None) -> Gold:
    return Gold(name, row, () if value is None else tuple(value) if isinstance(value, list) else (value,))
