"""Correct rollouts of earlier epochs, a few per prompt, as a checkpoint keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polaris.types import FinishReason

FILE = "successes.parquet"
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "tokens": pa.large_list(pa.int32()),
        "logprobs": pa.large_list(pa.float32()),
        "finish_reason": pa.string(),
        "version": pa.int64(),
        "temperature": pa.float64(),
        "seed": pa.int64(),
        "text": pa.large_string(),
        "answer": pa.string(),
    }
)
_ARRAYS = ("tokens", "logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """A correct response to a prompt, which its store names: the fields of its `Rollout`, its text, and the graded answer."""

    tokens: np.ndarray
    logprobs: np.ndarray
    finish_reason: FinishReason
    version: int
    temperature: float
    seed: int
    text: str
    answer: str | None


class Successes:
    """The newest `most` successes of every prompt; every rank holds all of them, about 12 bytes per token."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._stored: dict[str, tuple[Success, ...]] = {}

    def of(self, prompt_id: str) -> tuple[Success, ...]:
        """Those of one prompt, oldest first."""
        return self._stored.get(prompt_id, ())

    def add(self, prompt_id: str, newer: Sequence[Success]) -> None:
        """Store the newest ones; what no longer has a place is forgotten."""
        if newer and self.most:
            self._stored[prompt_id] = (*self.of(prompt_id), *newer)[-self.most :]

    def keep(self, prompt_ids: Iterable[str]) -> None:
        """Forget those of all other prompts."""
        self._stored = {prompt_id: self._stored[prompt_id] for prompt_id in prompt_ids if prompt_id in self._stored}

    def save(self, folder: Path) -> None:
        """Write `successes.parquet`: one row per success, by prompt id, oldest first."""
        rows = [(prompt_id, success) for prompt_id in sorted(self._stored) for success in self._stored[prompt_id]]
        fields = {name: [getattr(success, name) for _, success in rows] for name in _SCHEMA.names[1:]}
        pq.write_table(pa.table({"id": [prompt_id for prompt_id, _ in rows], **fields}, schema=_SCHEMA), folder / FILE)

    def load(self, folder: Path) -> None:
        """Hold what `save` wrote, of every prompt no more than `most`."""
        table = pq.read_table(folder / FILE, schema=_SCHEMA)
        plain = table.drop_columns(list(_ARRAYS)).to_pylist()
        arrays = zip(*([np.array(row.values) for row in table[name]] for name in _ARRAYS), strict=True)
        stored: dict[str, list[Success]] = {}
        for fields, (tokens, logprobs) in zip(plain, arrays, strict=True):
            stored.setdefault(fields.pop("id"), []).append(Success(tokens=tokens, logprobs=logprobs, **fields))
        self._stored = {prompt_id: tuple(successes[-self.most :]) for prompt_id, successes in stored.items() if self.most}
