"""What a resume needs besides tensors: plain values, and records that keep themselves in files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """State after a completed step. `sampler` is the cursor of consumed prompts; `nonfinite_streak` counts skipped updates in a row."""

    step: int
    version: int
    sampler: dict[str, int]
    nonfinite_streak: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> TrainState:
        return TrainState(**json.loads(text))


class Kept(Protocol):
    """A record that grows with the run and is the same on every rank: rank 0 writes it into a checkpoint, every rank reads it."""

    def save(self, folder: Path) -> None:
        """Write a file of its own name into `folder`; the checkpoint's commit makes it durable."""
        ...

    def load(self, folder: Path) -> None:
        """Hold what `save` wrote, and nothing else."""
        ...
