"""What a resume needs besides tensors, as plain values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


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
