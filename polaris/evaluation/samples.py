"""Finished samples on disk: one JSON line each, appended as it ends, so a kill loses only running samples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from polaris.errors import Refused
from polaris.types import FinishReason, GroundTruth


class Key(NamedTuple):
    """A sample's set, its problem's id in the set, and its number from 0."""

    suite: str
    problem: str
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response; `tokens` is its length."""

    key: Key
    seed: int
    response: str
    tokens: int
    finish_reason: FinishReason


class SampleFile:
    """Appends to one rank's file. `polaris grade FILE --id id` reads such files too."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"samples-rank{rank}.jsonl").open("ab")

    def append(self, sample: Sample, answer: GroundTruth) -> None:
        """Append one line. Once this returns, a kill of the process cannot lose the line; a power cut can."""
        suite, problem, number = sample.key
        line = {"id": f"{suite}/{problem}", "set": suite, "problem": problem, "sample": number, "seed": sample.seed}
        line |= {"finish_reason": sample.finish_reason, "tokens": sample.tokens, "answer": answer, "response": sample.response}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def mend(folder: Path) -> None:
    """Cut the torn last line off every sample file in `folder`."""
    for path in folder.glob("samples-rank*.jsonl"):
        size, whole = path.stat().st_size, 0
        with path.open("rb") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
        if whole < size:
            os.truncate(path, whole)


def read_samples(folder: Path) -> Iterator[Sample]:
    """All ranks' samples. Raises `ValueError` for a line that is not a sample."""
    for path in sorted(folder.glob("samples-rank*.jsonl")):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                    yield Sample(
                        key=Key(row["set"], row["problem"], row["sample"]),
                        seed=row["seed"],
                        response=row["response"],
                        tokens=row["tokens"],
                        finish_reason=row["finish_reason"],
                    )
                except (ValueError, KeyError, TypeError) as error:
                    raise Refused(f"{path}:{number} is not a sample ({error}); remove the line to draw it again") from error
