"""Grading: is the final answer of a response equal to the ground truth?

Checks run from cheap to expensive: the same text; numbers; structure (lists, tuples, intervals, matrices, relations, units); algebra.
`decide` runs all but algebra, in any process. `compare` runs all steps; it may never return on text that a policy writes,
so run it in a process that can be killed (`polaris.reward.pool`). docs/grader.md states the rules.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Literal

from polaris.reward import deepscaler
from polaris.reward.alternatives import alternatives
from polaris.reward.answer_pattern import answer_of
from polaris.reward.compare import equal, undecided
from polaris.reward.extract import BOXED
from polaris.reward.gold_faults import is_sentence, text_fault
from polaris.reward.leaves import Algebra
from polaris.reward.nodes import Choice, Leaf, Named, Node, Ordered, Relation, Unordered
from polaris.reward.screen import MAX_CHARS, refusal
from polaris.reward.spelling import respell
from polaris.reward.structure import read
from polaris.types import GroundTruth, Verdict

GRADER_VERSION = "8"
"""Written into every result; a higher number may give other verdicts."""

_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")

Mode = Literal["strict", "deepscaler"]
"""Our rules, or the recipe's published ones (`polaris.reward.deepscaler`)."""


def grade(response: str, ground_truth: GroundTruth, *, require_thinking: bool, mode: Mode = "strict") -> Verdict:
    """Grade a whole response in this process; may not return (see the module's docstring)."""
    decided = decide(response, ground_truth, require_thinking=require_thinking, mode=mode)
    return decided if isinstance(decided, Verdict) else compare(decided, ground_truth, mode)


def decide(response: str, ground_truth: GroundTruth, *, require_thinking: bool, mode: Mode = "strict", form: str = BOXED) -> Verdict | str:
    """The verdict if it needs no algebra; else the answer, for `compare`. `form` says where the answer is (`reward.answer`)."""
    answer = answer_of(response, form, require_thinking, joined=mode == "strict")
    if isinstance(answer, Verdict):
        return answer
    golds = accepted(ground_truth)
    if answer.strip() in golds:
        return Verdict("correct", "same text", _shown(answer), reward=1.0)
    if reason := "longer than the grader reads" if len(answer) > MAX_CHARS else _refusal(answer):
        return Verdict("ungradable", reason, _shown(answer))
    return _verdict(answer, golds, mode, undecided) or answer


def compare(answer: str, ground_truth: GroundTruth, mode: Mode = "strict") -> Verdict:
    """The verdict on an answer that `decide` returned, by algebra. Sets no signals and no limits."""
    from polaris.reward.symbolic import algebra

    return _verdict(answer, accepted(ground_truth), mode, algebra) or Verdict("wrong", "", answer)


def _verdict(answer: str, golds: list[str], mode: Mode, algebra: Algebra) -> Verdict | None:
    """The verdict; None if `algebra` could not tell."""
    found = [_equal(gold, answer, mode, algebra) for gold in golds]
    if True in found:
        return Verdict("correct", "equal", answer, reward=1.0)
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
    """The alternatives as text, 4.0 as `4`; those that no answer could equal (empty, damaged, not finite, ...) are left out."""
    return list(dict.fromkeys(_text(one) for one in _alternatives(ground_truth) if not _fault(one)))


def _alternatives(ground_truth: GroundTruth) -> list[str | int | float]:
    given = ground_truth if isinstance(ground_truth, tuple | list) else (ground_truth,)
    return [one for text in given for one in (alternatives(text) if isinstance(text, str) else (text,))]


def _reason(alternative: str | int | float) -> str | None:
    """Why nothing equals the alternative, or nothing but its own text, which no parser may see."""
    if fault := _fault(alternative):
        return fault
    refused = _refusal(_text(alternative))
    return f"refused by the grader's screen: {refused}" if refused else None


@functools.lru_cache(maxsize=8192, typed=True)
def _fault(alternative: str | int | float) -> str | None:
    text = _text(alternative)
    if not text:
        return "empty" if isinstance(alternative, str) else "not a finite number"
    if isinstance(alternative, str) and (fault := text_fault(alternative)):
        return fault
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if not any(character.isalnum() or character == "\\" for character in respell(text)):
        return "nothing to compare"
    return "a sentence, not an answer" if is_sentence(text) and not _states_value(text) else None


def _states_value(sentence: str) -> bool:
    """Whether the grader reads a sentence as the value in it: "The answer is 3." """
    return not _refusal(sentence) and _is_value(_tree(sentence))


def _is_value(node: Node) -> bool:
    """Whether the node has no words."""
    if isinstance(node, Leaf):
        return not _WORD.search(node.text)
    if isinstance(node, Named | Choice):
        return _is_value(node.value)
    if isinstance(node, Ordered | Unordered):
        return all(map(_is_value, node.items))
    return isinstance(node, Relation) and not any(map(_WORD.search, node.sides))


def _text(alternative: str | int | float) -> str:
    if isinstance(alternative, str):
        return alternative.strip()
    if isinstance(alternative, float):
        return "" if not math.isfinite(alternative) else str(int(alternative)) if alternative.is_integer() else repr(alternative)
    return str(alternative)


def _shown(answer: str) -> str:
    return answer[:MAX_CHARS]
