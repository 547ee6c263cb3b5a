"""What training has seen of each prompt, besides its pass rate: when it was drawn, how it went last, and how long its responses are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polaris.types import Group

FILE = "prompt_statistics.parquet"


@dataclass(slots=True, kw_only=True)
class Seen:
    """One prompt in training: drawn in `times_drawn` steps, the last of them `last_step`, in which `last_passed` of `last_graded`
    responses were correct. `tokens` and `clipped` are sums over all its `responses`."""

    times_drawn: int = 0
    last_step: int = 0
    last_passed: int = 0
    last_graded: int = 0
    responses: int = 0
    tokens: int = 0
    clipped: int = 0


class PromptStatistics:
    """`Seen` by prompt id, for prompts that were drawn; the difficulty pass does not count."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    @property
    def seen(self) -> Mapping[str, Seen]:
        """By prompt id."""
        return self._seen

    def add_groups(self, groups: Iterable[Group], step: int) -> None:
        """Count every group of a step, trained on or not; responses whose grading was lost are in no pass rate."""
        for group in groups:
            kinds = [scored.verdict.kind for scored in group.rollouts if not scored.verdict.lost]
            seen = self._seen.setdefault(group.prompt.id, Seen())
            seen.times_drawn += 1
            seen.last_step, seen.last_passed, seen.last_graded = step, kinds.count("correct"), len(kinds)
            seen.responses += len(group.rollouts)
            seen.tokens += sum(len(scored.rollout.tokens) for scored in group.rollouts)
            seen.clipped += sum(scored.rollout.finish_reason == "length" for scored in group.rollouts)

    def save(self, folder: Path) -> None:
        """Write `prompt_statistics.parquet`: id and the fields of `Seen`; one row per prompt, by id."""
        rows = [{"id": name, **asdict(self._seen[name])} for name in sorted(self._seen)]
        schema = pa.schema([("id", pa.string()), *((one.name, pa.int64()) for one in fields(Seen))])
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / FILE)

    def load(self, folder: Path) -> None:
        """Replace everything by what `save` wrote; a checkpoint of an older version has nothing."""
        rows = pq.read_table(folder / FILE).to_pylist() if (folder / FILE).is_file() else []
        self._seen = {row.pop("id"): Seen(**row) for row in rows}
