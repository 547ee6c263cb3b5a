"""Is the final answer of a response equal to the ground truth?

A ladder from cheap to dear: the same text; numbers; structure (lists, tuples, intervals, matrices, relations, units); algebra.
`decide` is all but the last step and may run in any process; `compare` is all of it, can take for ever on what a policy
writes, and belongs into a process that someone may kill (`polaris.reward.pool`). docs/grader.md states the rules.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

from polaris.data.prompt import GroundTruth
from polaris.reward import deepscaler
from polaris.reward.compare import Algebra, equal, undecided
from polaris.reward.extract import final_answer
from polaris.reward.screen import MAX_CHARS, refusal
from polaris.reward.spelling import respell
from polaris.reward.structure import Node, read
from polaris.reward.verdict import Verdict

GRADER_VERSION = "2"
"""Written into every result; a higher number may give other verdicts."""

Mode = Literal["strict", "deepscaler"]
"""Our rules, or the recipe's published ones (`polaris.reward.deepscaler`)."""


def grade(response: str, ground_truth: GroundTruth, *, require_thinking: bool, mode: Mode = "strict") -> Verdict:
    """Grade a whole response in this process; may not return (see the module's docstring)."""
    decided = decide(response, ground_truth, require_thinking=require_thinking, mode=mode)
    return decided if isinstance(decided, Verdict) else compare(decided, ground_truth, mode)


def decide(response: str, ground_truth: GroundTruth, *, require_thinking: bool, mode: Mode = "strict") -> Verdict | str:
    """The verdict where no algebra is needed; else the answer that `compare` must judge."""
    answer = final_answer(response, require_thinking)
    if isinstance(answer, Verdict):
        return answer
    golds = accepted(ground_truth)
    if answer.strip() in golds:
        return Verdict("correct", "same text", _shown(answer))
    if reason := "longer than the grader reads" if len(answer) > MAX_CHARS else refusal(respell(answer)):
        return Verdict("ungradable", reason, _shown(answer))
    return _verdict(answer, golds, mode, undecided) or answer


def compare(answer: str, ground_truth: GroundTruth, mode: Mode = "strict") -> Verdict:
    """Compare an answer that `decide` left over, by algebra. Sets no signals and no limits."""
    from polaris.reward.symbolic import algebra

    return _verdict(answer, accepted(ground_truth), mode, algebra) or Verdict("wrong", "", answer)


def _verdict(answer: str, golds: list[str], mode: Mode, algebra: Algebra) -> Verdict | None:
    """None where `algebra` could not tell."""
    if mode == "deepscaler":
        found = [deepscaler.equal(gold, answer, algebra) for gold in golds]
    else:
        found = [equal(_tree(gold), _tree(answer), algebra) for gold in golds if refusal(respell(gold)) is None]
    if True in found:
        return Verdict("correct", "equal", answer)
    return None if None in found else Verdict("wrong", "", answer)


@functools.lru_cache(maxsize=65_536)
def _tree(text: str) -> Node:
    return read(respell(text))


def gradable(ground_truth: GroundTruth) -> bool:
    """Whether some response could ever be graded correct."""
    return bool(accepted(ground_truth))


def accepted(ground_truth: GroundTruth) -> list[str]:
    """The alternatives as text, 4.0 as `4`; those that no answer could equal (empty, too long, not finite) are left out."""
    alternatives = ground_truth if isinstance(ground_truth, tuple) else (ground_truth,)
    texts = [_text(alternative) for alternative in alternatives]
    return list(dict.fromkeys(text for text in texts if len(text) <= MAX_CHARS and any(c.isalnum() or c == "\\" for c in respell(text))))


def _text(alternative: str | int | float) -> str:
    if isinstance(alternative, str):
        return alternative.strip()
    if isinstance(alternative, float):
        return "" if not math.isfinite(alternative) else str(int(alternative)) if alternative.is_integer() else repr(alternative)
    return str(alternative)


def _shown(answer: str) -> str:
    return answer[:MAX_CHARS]
