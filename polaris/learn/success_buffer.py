"""Correct rollouts of earlier epochs, a few per prompt, as a checkpoint keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polaris.types import Group, Rollout, ScoredRollout, Verdict

FILE = "successes.parquet"
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "tokens": pa.large_list(pa.int32()),
        "logprobs": pa.large_list(pa.float32()),
        "versions": pa.large_list(pa.int32()),
        "mask": pa.large_list(pa.bool_()),
        "finish_reason": pa.string(),
        "temperature": pa.float64(),
        "seed": pa.int64(),
        "text": pa.large_string(),
        "answer": pa.string(),
        "reward": pa.float64(),
    }
)
_ARRAYS = ("tokens", "logprobs", "versions")


class SuccessBuffer:
    """The newest `most` correct rollouts of every prompt.

    Rank 0 holds their texts and arrays, about 12 bytes per token. The others hold those of a checkpoint that they have loaded; of newer
    ones, `Rollout.without_arrays`.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._stored: dict[str, tuple[ScoredRollout, ...]] = {}

    def of(self, prompt_id: str) -> tuple[ScoredRollout, ...]:
        """Those of one prompt, oldest first."""
        return self._stored.get(prompt_id, ())

    def add(self, groups: Iterable[Group]) -> None:
        """Store the correct rollouts of a finished step, for later epochs: no prompt is drawn twice in one.

        The newest of a prompt replace its oldest.
        """
        if not self.most:
            return
        for group in groups:
            newer = [scored for scored in group.rollouts if scored.verdict.kind == "correct"][-self.most :]
            if newer:
                self._stored[group.prompt.id] = (*self.of(group.prompt.id), *map(_copied, newer))[-self.most :]

    def keep(self, prompt_ids: Iterable[str]) -> None:
        """Forget those of all other prompts."""
        self._stored = {prompt_id: self._stored[prompt_id] for prompt_id in prompt_ids if prompt_id in self._stored}

    def save(self, folder: Path) -> None:
        """Write `successes.parquet`: one row per rollout, by prompt id, oldest first."""
        rows = [scored for prompt_id in sorted(self._stored) for scored in self._stored[prompt_id]]
        columns = {
            "id": [one.rollout.prompt_id for one in rows],
            "text": [one.text for one in rows],
            "answer": [one.verdict.answer for one in rows],
            "reward": [one.verdict.reward for one in rows],
        }
        columns |= {name: [getattr(one.rollout, name) for one in rows] for name in _SCHEMA.names if name not in columns}
        pq.write_table(pa.table(columns, schema=_SCHEMA), folder / FILE)

    def load(self, folder: Path) -> None:
        """Hold what `save` wrote, of every prompt no more than `most`."""
        table = pq.read_table(folder / FILE)
        if "version" in table.column_names:  # Polaris 0.1 wrote one version for a whole rollout, and no reward
            versions = [[version.as_py()] * len(tokens) for version, tokens in zip(table["version"], table["tokens"], strict=True)]
            table = table.append_column("versions", pa.array(versions, pa.large_list(pa.int32())))
            table = table.append_column("reward", pa.array([1.0] * table.num_rows, pa.float64()))
        if "mask" not in table.column_names:  # no response had several turns
            table = table.append_column("mask", pa.nulls(table.num_rows, pa.large_list(pa.bool_()))).select(_SCHEMA.names)
        arrays = {name: [np.array(row.values) for row in table[name]] for name in _ARRAYS}
        stored: dict[str, list[ScoredRollout]] = {}
        for index, row in enumerate(table.drop_columns(list(_ARRAYS)).to_pylist()):
            rollout = Rollout(
                prompt_id=row["id"],
                sample=0,
                tokens=arrays["tokens"][index],
                logprobs=arrays["logprobs"][index],
                versions=arrays["versions"][index],
                finish_reason=row["finish_reason"],
                temperature=row["temperature"],
                seed=row["seed"],
                mask=None if row["mask"] is None else np.array(row["mask"], bool),
            )
            verdict = Verdict("correct", answer=row["answer"], reward=row["reward"])
            stored.setdefault(row["id"], []).append(ScoredRollout(rollout=rollout, text=row["text"], verdict=verdict, stored=True))
        self._stored = {prompt_id: tuple(successes[-self.most :]) for prompt_id, successes in stored.items() if self.most}


def _copied(scored: ScoredRollout) -> ScoredRollout:
    """A copy: arrays may be views that keep a whole batch alive. The verdict's reason is dropped."""
    rollout = scored.rollout
    own = replace(
        rollout,
        sample=0,
        tokens=_own(rollout.tokens),
        logprobs=_own(rollout.logprobs),
        versions=_own(rollout.versions),
        mask=None if rollout.mask is None else rollout.mask.copy(),
    )
    verdict = Verdict("correct", answer=scored.verdict.answer, reward=scored.verdict.reward)
    return ScoredRollout(rollout=own, text=scored.text, verdict=verdict, stored=True)


def _own(array: np.ndarray) -> np.ndarray:
    """A copy, but of one value that stands for many (`Rollout.without_arrays`)."""
    return array if array.strides == (0,) else array.copy()
