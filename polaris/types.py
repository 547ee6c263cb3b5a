"""What flows: prompts go in, an engine answers them with rollouts, a reward gives verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

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


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled response.

    `tokens` [n] int32 ends with the end-of-sequence token when `finish_reason` is "stop";
    `logprobs` [n] float32 are the engine's own, after temperature, in nats; `version` is that of the weights that sampled it.
    """

    key: tuple[int, int]
    prompt_tokens: tuple[int, ...]
    tokens: np.ndarray
    logprobs: np.ndarray
    finish_reason: FinishReason
    version: int
    temperature: float
    seed: int


VerdictKind = Literal["correct", "wrong", "no_answer", "ungradable"]

TIMEOUT, CRASHED = "timeout", "crashed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What grading one response ends in: `reason` says why in a few words; `answer` is what was graded, None where there was none.

    "ungradable" is text that may not be parsed, or that took a grading process its life; neither earns anything.
    """

    kind: VerdictKind
    reason: str = ""
    answer: str | None = None

    @property
    def lost(self) -> bool:
        """The text was legal and the limit ours, so the response says nothing about its policy: neither reward nor advantage."""
        return self.kind == "ungradable" and self.reason in (TIMEOUT, CRASHED)

    @property
    def reward(self) -> float:
        return 1.0 if self.kind == "correct" else 0.0
