"""How often each prompt has been solved so far, which decides when it is too easy; and the pass rates that a set gives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from polaris.config.recipe import DifficultyConfig
from polaris.data.sources import columns_of, lookup
from polaris.errors import Refused
from polaris.types import Group, Prompt

FILE = "ledger.parquet"


class PassRates:
    """Passed and graded responses by prompt id. The pass rate is passed / graded over all of them, offline pass included.

    The recipe calls it "per-sample accuracy, updated after every reward computation, initialised by the offline value" and leaves
    the update open. We take the mean over all verdicts. The latest group alone would forget the offline value at once, and is too
    noisy at n = 8: a prompt solved four times in five would seem always solved in one group of six. A moving average would need a
    constant that the recipe does not give. The price: old verdicts keep their weight, so a prompt that was hard offline takes some
    epochs to count as easy.

    Callers leave responses whose grading was lost out of both numbers.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add_offline(self, prompt_id: str, passed: int, graded: int) -> None:
        """Set a prompt's counts to the verdicts of the difficulty pass; earlier counts are dropped."""
        assert 0 <= passed <= graded
        self._counts[prompt_id] = (passed, graded)

    def add(self, prompt_id: str, passed: int, graded: int) -> None:
        """Count the verdicts of one more group."""
        assert 0 <= passed <= graded
        before_passed, before_graded = self._counts.get(prompt_id, (0, 0))
        self._counts[prompt_id] = (before_passed + passed, before_graded + graded)

    def add_groups(self, groups: Iterable[Group]) -> None:
        """Count every group of a step, trained on or not; lost verdicts are left out."""
        for group in groups:
            self.add(group.prompt.id, *group.passes)

    def rate(self, prompt_id: str) -> float | None:
        """Share of passed responses in [0, 1]; None for a prompt without a verdict."""
        passed, graded = self._counts.get(prompt_id, (0, 0))
        return passed / graded if graded else None

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """(passed, graded) by prompt id, a copy."""
        return dict(self._counts)

    def restore(self, other: PassRates) -> None:
        """Replace the counts by those of `other`."""
        self._counts = other.counts

    def save(self, folder: Path) -> None:
        """Write `ledger.parquet`: id, passed, graded; one row per prompt, by id."""
        rows = sorted(self._counts.items())
        table = pa.table(
            {
                "id": pa.array([prompt_id for prompt_id, _ in rows], pa.string()),
                "passed": pa.array([passed for _, (passed, _) in rows], pa.int64()),
                "graded": pa.array([graded for _, (_, graded) in rows], pa.int64()),
            }
        )
        pq.write_table(table, folder / FILE)

    def load(self, folder: Path) -> None:
        """Replace the counts by those that `save` wrote."""
        columns = pq.read_table(folder / FILE).to_pydict()
        self._counts = dict(zip(columns["id"], zip(columns["passed"], columns["graded"], strict=True), strict=True))


def read_pass_rate(row: dict[str, Any], source: str, config: DifficultyConfig | None) -> tuple[int, int] | None:
    """Correct and all responses from `config.column` of the row: text such as "5/8" (POLARIS' own set), or a share of
    `config.samples_per_prompt` responses. None if no column is named.

    Raises:
        ValueError: naming `source`, for a row without the column or with another value in it.
    """
    if config is None or config.column is None:
        return None
    value, samples = lookup(row, config.column), config.samples_per_prompt
    if value is None and config.column not in row:
        raise Refused(f"{source} has no column difficulty.column = {config.column!r}; there is {columns_of(row)}")
    if (counts := _written(value)) is not None:
        return counts
    if _is_share(value):
        passed = round(value * samples)
        if abs(value - passed / samples) < 0.0051:  # rates are written with two digits or more
            return passed, samples
    raise Refused(
        f"{source} has {value!r} in {config.column!r}, not a pass rate; write correct / all responses, such as 5/8, or a share of "
        f"difficulty.samples_per_prompt = {samples}, or remove difficulty.column to measure it"
    )


def read_prior(prompt: Prompt, column: str) -> float:
    """The pass rate of another model in `column` of the prompt's row. Raises `Refused` for a row that has none."""
    value = lookup(prompt.row, column)
    if (counts := _written(value)) is not None:
        return counts[0] / counts[1]
    if _is_share(value):
        return float(value)
    raise Refused(
        f"{prompt.source} has {value!r} in curriculum.prior = {column!r}, not a pass rate such as 5/8 or 0.625; correct it, or remove "
        "curriculum.prior"
    )


def _written(value: object) -> tuple[int, int] | None:
    """Correct and all responses of text such as "5/8"."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", value) if isinstance(value, str) else None
    counts = (int(found[1]), int(found[2])) if found else (1, 0)
    return counts if counts[0] <= counts[1] > 0 else None


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def read_passes(path: Path) -> dict[str, tuple[int, int]]:
    """(passed, count) by id, in the order of the pass. Raises `ValueError` if `path` cannot be read."""
    columns = _columns(path, "id", "passed", "count")
    return dict(zip(columns["id"], zip(columns["passed"], columns["count"], strict=True), strict=True))


def read_lengths(path: Path) -> dict[str, float]:
    """Mean tokens of a response by id; empty where none was drawn. Raises `ValueError` as `read_passes`."""
    columns = _columns(path, "id", "response_length_mean")
    return dict(zip(columns["id"], columns.get("response_length_mean", ()), strict=False))


def _columns(path: Path, *names: str) -> dict[str, list[Any]]:
    """Those of the columns that the file has."""
    try:
        return pq.read_table(path, columns=[name for name in names if name in pq.read_schema(path).names]).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise Refused(f"{path} cannot be read ({error}); delete it and the .json beside it, and the pass runs again") from error
