"""Is the final answer of a response equal to the ground truth?

A ladder from cheap to dear: the same text; numbers; structure (lists, tuples, intervals, matrices, relations, units); algebra.
`decide` is all but the last step and may run in any process; `compare` is all of it, can take for ever on what a policy
writes, and belongs into a process that someone may kill (`polaris.reward.pool`). docs/grader.md states the rules.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

from polaris.data.prompt import GroundTruth
from polaris.reward import deepscaler
from polaris.reward.compare import Algebra, equal, undecided
from polaris.reward.extract import final_answer
from polaris.reward.screen import MAX_CHARS, refusal
from polaris.reward.spelling import respell
from polaris.reward.structure import Node, read
from polaris.reward.verdict import Verdict

GRADER_VERSION = "6"
"""Written into every result; a higher number may give other verdicts."""

Mode = Literal["strict", "deepscaler"]
"""Our rules, or the recipe's published ones (`polaris.reward.deepscaler`)."""


def grade(response: str, ground_truth: GroundTruth, *, require_thinking: bool, mode: Mode = "strict") -> Verdict:
    """Grade a whole response in this process; may not return (see the module's docstring)."""
    decided = decide(response, ground_truth, require_thinking=require_thinking, mode=mode)
    return decided if isinstance(decided, Verdict) else compare(decided, ground_truth, mode)


def decide(response: str, ground_truth: GroundTruth, *, require_thinking: bool, mode: Mode = "strict") -> Verdict | str:
    """The verdict where no algebra is needed; else the answer that `compare` must judge."""
    answer = final_answer(response, require_thinking, joined=mode == "strict")
    if isinstance(answer, Verdict):
        return answer
    golds = accepted(ground_truth)
    if answer.strip() in golds:
        return Verdict("correct", "same text", _shown(answer))
    if reason := "longer than the grader reads" if len(answer) > MAX_CHARS else _refusal(answer):
        return Verdict("ungradable", reason, _shown(answer))
    return _verdict(answer, golds, mode, undecided) or answer


def compare(answer: str, ground_truth: GroundTruth, mode: Mode = "strict") -> Verdict:
    """Compare an answer that `decide` left over, by algebra. Sets no signals and no limits."""
    from polaris.reward.symbolic import algebra

    return _verdict(answer, accepted(ground_truth), mode, algebra) or Verdict("wrong", "", answer)


def _verdict(answer: str, golds: list[str], mode: Mode, algebra: Algebra) -> Verdict | None:
    """None where `algebra` could not tell."""
    found = [_equal(gold, answer, mode, algebra) for gold in golds]
    if True in found:
        return Verdict("correct", "equal", answer)
    return None if None in found else Verdict("wrong", "", answer)


def _equal(gold: str, answer: str, mode: Mode, algebra: Algebra) -> bool | None:
    """A gold answer that may not be parsed equals only its own text, which `decide` has looked for."""
    if _refusal(gold):
        return False
    return deepscaler.equal(gold, answer, algebra) if mode == "deepscaler" else equal(_tree(gold), _tree(answer), algebra)


@functools.lru_cache(maxsize=8192)
def _tree(text: str) -> Node:
    return read(respell(text))


@functools.lru_cache(maxsize=8192)
def _refusal(text: str) -> str | None:
    return refusal(respell(text))


def gradable(ground_truth: GroundTruth) -> bool:
    """Whether some response could be compared with one of the alternatives."""
    return ungradable_reason(ground_truth) is None


def ungradable_reason(ground_truth: GroundTruth) -> str | None:
    """Why no response could be compared with any of the alternatives, in a few words; None where one could."""
    reasons = [_reason(alternative) for alternative in _alternatives(ground_truth)]
    return None if None in reasons else next(iter(reasons), "no answer")


def accepted(ground_truth: GroundTruth) -> list[str]:
    """The alternatives as text, 4.0 as `4`; those that no answer could equal (empty, too long, not finite) are left out."""
    texts = [_text(alternative) for alternative in _alternatives(ground_truth)]
    return list(dict.fromkeys(text for text in texts if _usable(text)))


def _alternatives(ground_truth: GroundTruth) -> Sequence[str | int | float]:
    return ground_truth if isinstance(ground_truth, tuple | list) else (ground_truth,)


@functools.lru_cache(maxsize=8192)
def _usable(text: str) -> bool:
    return len(text) <= MAX_CHARS and any(character.isalnum() or character == "\\" for character in respell(text))


def _reason(alternative: str | int | float) -> str | None:
    text = _text(alternative)
    if not text:
        return "empty" if isinstance(alternative, str) else "not a finite number"
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if not _usable(text):
        return "nothing to compare"
    refused = _refusal(text)
    return f"refused by the grader's screen: {refused}" if refused else None


def _text(alternative: str | int | float) -> str:
    if isinstance(alternative, str):
        return alternative.strip()
    if isinstance(alternative, float):
        return "" if not math.isfinite(alternative) else str(int(alternative)) if alternative.is_integer() else repr(alternative)
    return str(alternative)


def _shown(answer: str) -> str:
    return answer[:MAX_CHARS]
