"""What flows: prompts go in, an engine answers them with rollouts, a reward gives verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

GroundTruth = str | int | float | tuple[str | int | float, ...]
"""One accepted answer, or several alternatives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One problem, rendered through the chat template and tokenized.

    `id` is unique in its prompt set; `source` is `file:row` of the row it came from, for error messages. `messages` are the chat behind
    `text`, each with its role and content, the system prompt and suffix included; `row` holds the row's columns as read. `set` is the
    name of its set, "" where there is only one. `passes` are the correct and all responses behind the pass rate that the set itself gives,
    where `difficulty.column` asks for it.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    ground_truth: GroundTruth
    source: str
    messages: tuple[Mapping[str, str], ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[int, int] | None = None
    set: str = ""


FinishReason = Literal["stop", "length", "abort"]
"""The policy has ended it; it has reached its longest length; it was cut off by us, and may go on (`rollout.carry_over`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Sample number `sample` of the prompt `prompt_id`: n response tokens, as one engine drew them.

    `tokens` [n] int32 ends with the end-of-sequence token when `finish_reason` is "stop". `logprobs` [n] float32 are the behaviour
    log-probs: the engine's own, at `temperature`, in nats. `versions` [n] int32 are those of the weights that sampled each token.
    `mask` [n] bool is False for tokens that the policy did not choose, such as a tool's output; None where it chose them all.

    >>> Rollout(prompt_id="row-7", sample=0, tokens=np.array([52, 2], np.int32), logprobs=np.array([-0.7, -0.1], np.float32),
    ...         versions=np.array([3, 3], np.int32), finish_reason="stop", temperature=1.0, seed=11).version
    3
    """

    prompt_id: str
    sample: int
    tokens: np.ndarray
    logprobs: np.ndarray
    versions: np.ndarray
    finish_reason: FinishReason
    temperature: float
    seed: int
    mask: np.ndarray | None = None

    @property
    def version(self) -> int:
        """Version of the oldest weights that sampled a part of it."""
        return int(self.versions.min())

    @property
    def read(self) -> int:
        """Number of its tokens that the policy did not choose."""
        return 0 if self.mask is None else int((~self.mask).sum())

    @property
    def turns(self) -> int:
        """Number of times that the policy wrote: the stretches of tokens that it chose."""
        return 1 if self.mask is None else int(np.diff(self.mask.astype(np.int8), prepend=0).clip(0).sum())

    def without_arrays(self) -> Rollout:
        """What a rank knows of a rollout that another one holds: tokens are -1 and log-probs NaN, as many as they are, in no memory.

        So are versions where all are the same; otherwise they stay, as the mask does.
        """
        shape, oldest = self.tokens.shape, self.versions.min()
        return replace(
            self,
            tokens=np.broadcast_to(np.int32(-1), shape),
            logprobs=np.broadcast_to(np.float32(np.nan), shape),
            versions=np.broadcast_to(np.int32(oldest), shape) if oldest == self.versions.max() else self.versions,
        )


VerdictKind = Literal["correct", "wrong", "no_answer", "ungradable"]

TIMEOUT, CRASHED, RAISED = "timeout", "crashed", "raised"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reward makes of one response.

    `reason` says why in a few words; `answer` is what was graded, None where there was none; `reward` is what the response earns.
    "ungradable" is text that may not be parsed, that took a grading process its life, or at which a user's reward raised; none earns
    anything. `parts` are those of the rewards in `reward.function`, without their weights, where they are not just `reward`. `trace` is the
    traceback of a reward that raised. `marked` are keys of the intermediate results that it marks (`reward.process`), `marks` the number of
    different ones that it marked, None where that could not be found out, and `process` what it earns for them, which `reward` includes.
    """

    kind: VerdictKind
    reason: str = ""
    answer: str | None = None
    reward: float = 0.0
    parts: tuple[float, ...] = ()
    trace: str = ""
    marked: tuple[str, ...] = ()
    marks: int | None = 0
    process: float = 0.0

    @property
    def lost(self) -> bool:
        """The text was legal and the fault ours, so the response says nothing about its policy: neither reward nor advantage."""
        return self.kind == "ungradable" and self.reason in (TIMEOUT, CRASHED, RAISED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout with its text and verdict; `stored` where it was drawn in an earlier step, not by the present weights."""

    rollout: Rollout
    text: str
    verdict: Verdict
    stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt with all of its rollouts of one step, in the order of their samples: what group-relative advantages compare."""

    prompt: Prompt
    rollouts: tuple[ScoredRollout, ...]

    @property
    def passes(self) -> tuple[int, int]:
        """Correct and graded responses; one whose grading was lost is in neither."""
        kinds = [scored.verdict.kind for scored in self.rollouts if not scored.verdict.lost]
        return kinds.count("correct"), len(kinds)
