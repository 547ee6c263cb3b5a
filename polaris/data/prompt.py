"""A prompt as every later room sees it."""

from __future__ import annotations

from dataclasses import dataclass

GroundTruth = str | int | float | tuple[str | int | float, ...]
"""One accepted answer, or several alternatives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One problem, rendered through the chat template and tokenized.

    `id` is unique in its prompt set; `source` is `file:row` of the row it came from, for error messages. `passes` are the correct
    and all responses behind the pass rate that the set itself gives, where `difficulty.column` asks for it.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    ground_truth: GroundTruth
    source: str
    passes: tuple[int, int] | None = None
