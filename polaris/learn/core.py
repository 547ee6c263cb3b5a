"""The process reward CORE of POLARIS V2: intermediate results of correct responses, by prompt, and what wrong responses earn by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polaris.config.process import ProcessConfig
from polaris.types import Group, ScoredRollout

FILE = "results.parquet"
_SCHEMA = pa.schema({"id": pa.string(), "results": pa.list_(pa.string()), "counts": pa.list_(pa.int64()), "first": pa.int64()})


@dataclass(frozen=True, slots=True)
class Results:
    """The set s_i of one prompt: results with the number of correct responses that mark each, and how many there were at first."""

    counts: Mapping[str, int] = field(default_factory=dict)
    first: int = 0

    def grown(self, more: Mapping[str, int], most: int) -> Results:
        """With `more` counted; the `most` frequent stay, of equally frequent ones the first by key, so that every rank has the same."""
        if not more:
            return self
        total = Counter(self.counts) + Counter(more)
        kept = dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))[:most])
        return Results(kept, self.first or len(kept))

    def size(self, process: ProcessConfig) -> int:
        """|s_i| as the denominator has it; 0 where no correct response has marked anything."""
        return self.first if process.denominator == "frozen" else len(self.counts)

    def share(self, marked: Sequence[str], process: ProcessConfig) -> float:
        """|P ∩ s_i| / max(|s_i|, |P|) for the marked results P, in [0, 1].

        The published denominator is |s_i|. It is the same unless a response marks more results than there are: then every further one
        costs, so that marking everything earns less than marking what is right.
        """
        size = self.size(process)
        return min(1.0, len(self.counts.keys() & set(marked)) / max(size, len(marked))) if size else 0.0


NONE = Results()


class ResultSets:
    """The results of every prompt, the same on every rank: those of the difficulty pass, and of all steps so far."""

    def __init__(self, process: ProcessConfig) -> None:
        self._process = process
        self._of: dict[str, Results] = {}

    def of(self, prompt_id: str) -> Results:
        return self._of.get(prompt_id, NONE)

    def size(self, prompt_id: str) -> int:
        """|s_i| as the denominator has it."""
        return self.of(prompt_id).size(self._process)

    def add(self, groups: Iterable[Group]) -> None:
        """Count the results of a finished step's correct responses."""
        if self._process.most:
            for group in groups:
                self.add_counts(group.prompt.id, _correct(group))

    def add_counts(self, prompt_id: str, counts: Mapping[str, int]) -> None:
        """Count results of one prompt."""
        if counts:
            self._of[prompt_id] = self.of(prompt_id).grown(counts, self._process.stored)

    def credited(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with the process reward, min(most, share), added to what their wrong responses earn. Nothing is counted yet.

        The correct responses of a group belong to its set already: without a difficulty pass, a whole epoch would have none otherwise.
        """
        return [self._credited(group) for group in groups] if self._process.most else list(groups)

    def _credited(self, group: Group) -> Group:
        results = self.of(group.prompt.id).grown(_correct(group), self._process.stored)
        return replace(group, rollouts=tuple(_rewarded(scored, results, self._process) for scored in group.rollouts))

    def keep(self, prompt_ids: Iterable[str]) -> None:
        """Forget those of all other prompts."""
        self._of = {prompt_id: self._of[prompt_id] for prompt_id in prompt_ids if prompt_id in self._of}

    def save(self, folder: Path) -> None:
        """Write `results.parquet`: one row per prompt, by id."""
        rows = [
            {"id": prompt_id, "results": list(one.counts), "counts": list(one.counts.values()), "first": one.first}
            for prompt_id, one in sorted(self._of.items())
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / FILE)

    def load(self, folder: Path) -> None:
        """Hold what `save` wrote; nothing where the checkpoint is of a version without it."""
        rows = pq.read_table(folder / FILE).to_pylist() if (folder / FILE).is_file() else []
        self._of = {row["id"]: Results(dict(zip(row["results"], row["counts"], strict=True)), row["first"]) for row in rows}


def _correct(group: Group) -> Counter[str]:
    """Results of the correct responses, each once a response."""
    return Counter(key for scored in group.rollouts if scored.verdict.kind == "correct" for key in scored.verdict.marked)


def _rewarded(scored: ScoredRollout, results: Results, process: ProcessConfig) -> ScoredRollout:
    verdict = scored.verdict
    if verdict.kind != "wrong":
        return scored
    earned = min(process.most, results.share(verdict.marked, process))
    return replace(scored, verdict=replace(verdict, reward=verdict.reward + earned, process=earned))
