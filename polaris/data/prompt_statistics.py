"""What training has seen of each prompt, besides its pass rate: when it was drawn, how it went last, and how long its responses are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polaris.types import Group

FILE = "prompt_statistics.parquet"


PRIOR = 2.0
"""Verdicts that another model's pass rate counts for: as many as the Beta(1, 1) of a prompt of which nothing is known."""
_TYPES = {"int": pa.int64(), "float": pa.float64()}
"""Of the columns, by the annotation of the field."""


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
    recent_passed: float = 0.0
    recent_graded: float = 0.0
    """Verdicts that count half after each half-life, as they stood at `recent_step`; the difficulty pass is at step 0."""
    recent_step: int = 0
    offline_length: float = 0.0
    """Mean tokens of a response in the difficulty pass; 0 without one."""


class PromptStatistics:
    """`Seen` by prompt id.

    The recent pass rate is another statistic than `PassRates`: that one is the mean over all verdicts, whose noise must be small where a
    prompt is dropped for good. Where prompts are only drawn more or less often, an old verdict of a weaker policy misleads, and a wrong one
    is soon put right: here verdicts count half after every `half_life` steps.
    """

    def __init__(self, half_life: int) -> None:
        self._half_life = half_life
        self._seen: dict[str, Seen] = {}

    def begin(self, counts: Mapping[str, tuple[float, float]]) -> None:
        """Count (passed, graded) verdicts from before the first step: of the difficulty pass, or what a prior is worth."""
        for name, (passed, graded) in counts.items():
            seen = self._seen.setdefault(name, Seen())
            seen.recent_passed, seen.recent_graded = seen.recent_passed + passed, seen.recent_graded + graded

    def begin_lengths(self, lengths: Mapping[str, float]) -> None:
        """Mean tokens of the responses of the difficulty pass."""
        for name, length in lengths.items():
            self._seen.setdefault(name, Seen()).offline_length = length

    def recent(self, prompt_id: str, step: int) -> tuple[float, float]:
        """(passed, graded) of a prompt as they count in `step`."""
        seen = self._seen.get(prompt_id)
        if seen is None:
            return 0.0, 0.0
        left = 0.5 ** ((step - seen.recent_step) / self._half_life)
        return seen.recent_passed * left, seen.recent_graded * left

    def forget(self, step: int) -> None:
        """Let the recent pass rate of every prompt count no more than one verdict."""
        for name, seen in self._seen.items():
            passed, graded = self.recent(name, step)
            most = max(1.0, graded)
            seen.recent_passed, seen.recent_graded, seen.recent_step = passed / most, graded / most, step

    @property
    def seen(self) -> Mapping[str, Seen]:
        """By prompt id."""
        return self._seen

    def add_groups(self, groups: Iterable[Group], step: int) -> None:
        """Count every group of a step, trained on or not; responses whose grading was lost are in no pass rate."""
        for group in groups:
            correct, graded = group.passes
            seen = self._seen.setdefault(group.prompt.id, Seen())
            before = self.recent(group.prompt.id, step)
            seen.recent_passed, seen.recent_graded, seen.recent_step = before[0] + correct, before[1] + graded, step
            seen.times_drawn += 1
            seen.last_step, seen.last_passed, seen.last_graded = step, correct, graded
            seen.responses += len(group.rollouts)
            seen.tokens += sum(len(scored.rollout.tokens) for scored in group.rollouts)
            seen.clipped += sum(scored.rollout.finish_reason == "length" for scored in group.rollouts)

    def usual_lengths(self) -> dict[str, float]:
        """Mean tokens of a response, by the prompts that have one: in training, else in the difficulty pass."""
        known = {name: seen.tokens / seen.responses if seen.responses else seen.offline_length for name, seen in self._seen.items()}
        return {name: length for name, length in known.items() if length}

    def save(self, folder: Path) -> None:
        """Write `prompt_statistics.parquet`: id and the fields of `Seen`; one row per prompt, by id."""
        rows = [{"id": name, **asdict(self._seen[name])} for name in sorted(self._seen)]
        schema = pa.schema([("id", pa.string()), *((one.name, _TYPES[str(one.type)]) for one in fields(Seen))])
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / FILE)

    def load(self, folder: Path) -> None:
        """Replace everything by what `save` wrote; a checkpoint of an older version has nothing."""
        rows = pq.read_table(folder / FILE).to_pylist() if (folder / FILE).is_file() else []
        self._seen = {row.pop("id"): Seen(**row) for row in rows}
