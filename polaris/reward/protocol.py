"""What a reward is: the `Reward` protocol, and the items that it scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from polaris.types import FinishReason, GroundTruth, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """One response and what is known of it.

    `prompt` is the rendered text that the model has read, `messages` the chat behind it. `length` counts the response's tokens, of which
    `limit` were allowed. `row` holds the further columns of the prompt's row, as JSON can hold them.
    """

    response: str
    ground_truth: GroundTruth
    prompt: str = ""
    messages: Sequence[Mapping[str, str]] = ()
    finish_reason: FinishReason = "stop"
    length: int = 0
    limit: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)


class Reward(Protocol):
    """What a response earns; a user's class has these two methods, and `check` may be missing.

    >>> class Words:
    ...     def __init__(self, most: int = 50) -> None:  # reward.options."mine:Words" = { most = 40 }
    ...         self.most = most
    ...     def check(self, ground_truth):
    ...         return None if str(ground_truth).strip() else "empty"
    ...     def score(self, items):
    ...         return [Verdict("correct", reward=1.0) if len(item.response.split()) <= self.most else Verdict("wrong") for item in items]
    """

    def check(self, ground_truth: GroundTruth) -> str | None:
        """The reason, in a few words, why no response could earn anything; None where one could. Asked of every row at start."""
        ...

    def score(self, items: Sequence[RewardItem]) -> Sequence[Verdict | float]:
        """A verdict, or a number, for each item; in the killable process it gets one item at a time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How answers are looked for: `reward.answer`, and whether a response without `</think>` has none; and `reward.success_above`."""

    answer: str = "boxed"
    require_thinking: bool = False
    success_above: float | None = None
