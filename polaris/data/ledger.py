"""How often each prompt has been solved so far: the running pass rate that decides which prompts have become too easy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = "ledger.parquet"


class Ledger:
    """Passed and graded responses by prompt id; the pass rate is passed / graded over all of them, the offline pass included.

    The recipe calls it "per-sample accuracy, updated after every reward computation, initialised by the offline value" and leaves
    the update open. It is the mean over all verdicts because the latest group alone would forget the offline value at once, so that
    initialising would mean nothing, and is too noisy at n = 8: a prompt solved four times in five would pass for solved every time in
    one group of six. A moving average would add a constant that the recipe does not give. The price: old verdicts keep their weight,
    so a prompt that was hard offline takes some epochs to count as easy.

    Responses whose grading was lost are no verdicts; whoever adds leaves them out of both numbers.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add_offline(self, prompt_id: str, passed: int, graded: int) -> None:
        """Begin a prompt's count with the verdicts of the difficulty pass, whatever was counted before."""
        assert 0 <= passed <= graded
        self._counts[prompt_id] = (passed, graded)

    def add(self, prompt_id: str, passed: int, graded: int) -> None:
        """Count the verdicts of one more group."""
        assert 0 <= passed <= graded
        before_passed, before_graded = self._counts.get(prompt_id, (0, 0))
        self._counts[prompt_id] = (before_passed + passed, before_graded + graded)

    def rate(self, prompt_id: str) -> float | None:
        """Share of passed responses in [0, 1]; None for a prompt without any verdict."""
        passed, graded = self._counts.get(prompt_id, (0, 0))
        return passed / graded if graded else None

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """(passed, graded) by prompt id, a copy."""
        return dict(self._counts)

    def restore(self, other: Ledger) -> None:
        """Hold what `other` holds."""
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
        """Hold what `save` wrote."""
        columns = pq.read_table(folder / FILE).to_pydict()
        self._counts = dict(zip(columns["id"], zip(columns["passed"], columns["graded"], strict=True), strict=True))
