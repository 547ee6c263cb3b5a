"""Reasons why responses have no answer: a policy without answers gets no reward and learns nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from polaris.reward.extract import EMPTY_BOX, NO_BOX, NO_END, NO_FORM, UNFINISHED
from polaris.types import Verdict

CUT_OFF = "cut off at the token limit"
_METRICS = {CUT_OFF: "cut_off", NO_END: "no_end_of_thinking", UNFINISHED: "unfinished_thinking", NO_BOX: "no_box", EMPTY_BOX: "empty_box"}


def reason(verdict: Verdict, cut: bool) -> str | None:
    """Why a response has no answer; None if it has one. `cut`: it was cut off at the token limit."""
    if verdict.kind != "no_answer":
        return None
    return CUT_OFF if cut else verdict.reason


def count(reasons: Iterable[str | None]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(one for one in reasons if one is not None).most_common())


def metrics(counts: Mapping[str, int], responses: int, prefix: str) -> dict[str, float]:
    """`prefix`: the share of `responses` without an answer; `prefix/<reason>`: its share per reason."""
    parts = dict.fromkeys(_METRICS.values(), 0.0)
    for why, number in counts.items():
        name = "no_form" if why == NO_FORM else _METRICS.get(why, "other")
        parts[name] = parts.get(name, 0.0) + number / responses
    return {prefix: sum(counts.values()) / responses} | {f"{prefix}/{name}": share for name, share in parts.items()}


def keys(prefix: str) -> list[tuple[str, str]]:
    """The parts of `metrics`: name and reason in words."""
    return [(f"{prefix}/{name}", why) for why, name in _METRICS.items()]


def in_words(counts: Mapping[str, int]) -> str:
    """`12 no \\boxed{}, 3 cut off at the token limit`."""
    return ", ".join(f"{number} {why}" for why, number in counts.items())
