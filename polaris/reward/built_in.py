"""The rewards that Polaris brings, by name. Each takes `Rules` first, then its options by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from polaris.errors import Refused
from polaris.reward.answer_pattern import answer_of, pattern
from polaris.reward.extract import boxes, final_part
from polaris.reward.grade import compare, decide, ungradable_reason
from polaris.reward.gym import ReasoningGym
from polaris.reward.protocol import RewardItem, Rules
from polaris.types import GroundTruth, Verdict

LETTERS = "ABCDEFGHIJ"
_ANSWER = re.compile(r"(?i:\banswer\b[\s*_]*(?:\bis\b|[:\uff1a]))[\s*_:(\[]{0,20}([A-J]\b(?!')|[a-j](?=\W{0,5}(?:\n|\Z)))")
_BRACKETS = re.compile(r"\(([A-J])\)")
_ALONE = re.compile(r"(?<![\w'])([B-HJ]|[AI](?!\s+[a-z]))(?![\w'])")
_BOX = re.compile(r"\W*(?:text|mathrm|textbf)?\W*([A-Ja-j])\b")


class Math:
    """The math grader (docs/grader.md), in a process that may never return."""

    def __init__(self, rules: Rules) -> None:
        pattern(rules.answer, "reward.answer")
        self._rules = rules

    def check(self, ground_truth: GroundTruth) -> str | None:
        return ungradable_reason(ground_truth)

    def score(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._score(item) for item in items]

    def _score(self, item: RewardItem) -> Verdict:
        rules = self._rules
        found = decide(item.response, item.ground_truth, require_thinking=rules.require_thinking, form=rules.answer)
        return found if isinstance(found, Verdict) else compare(found, item.ground_truth)


class Exact:
    """The text of the answer is one of the ground truths, case and white space aside."""

    def __init__(self, rules: Rules) -> None:
        pattern(rules.answer, "reward.answer")
        self._rules = rules

    def check(self, ground_truth: GroundTruth) -> str | None:
        return None if any(map(_plain, _texts(ground_truth))) else "empty"

    def score(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._score(item) for item in items]

    def _score(self, item: RewardItem) -> Verdict:
        answer = answer_of(item.response, self._rules.answer, self._rules.require_thinking)
        return answer if isinstance(answer, Verdict) else _verdict(answer, _plain(answer) in map(_plain, _texts(item.ground_truth)))


class MultipleChoice:
    """The letter that a response chooses, A to J, is the ground truth's: a letter, or an index from 0.

    Looked for in the last box, else behind the last "answer", else the last in brackets, else the last that stands alone.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def check(self, ground_truth: GroundTruth) -> str | None:
        return None if any(map(_letter, _texts(ground_truth))) else f"neither a letter of {LETTERS[0]} to {LETTERS[-1]} nor an index"

    def score(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._score(item) for item in items]

    def _score(self, item: RewardItem) -> Verdict:
        part = final_part(item.response, self._rules.require_thinking)
        if isinstance(part, Verdict):
            return part
        chosen = _chosen(part[0])
        return Verdict("no_answer", "no letter") if chosen is None else _verdict(chosen, chosen in map(_letter, _texts(item.ground_truth)))


class Format:
    """1 where the regular expression `pattern` matches the whole response, white space at its ends aside, else 0; `.` is any character."""

    def __init__(self, rules: Rules, *, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise Refused(f"reward.options.format.pattern = {pattern!r} is no regular expression ({error}); correct it") from error

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        return [float(self._pattern.fullmatch(item.response.strip()) is not None) for item in items]


class Length:
    """A penalty between -1 and 0 for the number n of a response's tokens.

    With `buffer` it is the soft overlong punishment of DAPO (arXiv 2503.14476, equation 13) with `limit` as L_max and `buffer` as L_cache:
    0 up to limit - buffer, (limit - buffer - n) / buffer up to limit, then -1. `limit` is by default the most response tokens.
    With `target` it is -|n - target| / target and at least -1, the distance of L1 (arXiv 2503.04697) relative to the target.
    """

    def __init__(self, rules: Rules, *, limit: int | None = None, buffer: int | None = None, target: int | None = None) -> None:
        if (buffer is None) == (target is None) or (target is not None and limit is not None):
            raise Refused("reward.options.length takes buffer (and limit), or target; give one of the two, as in { buffer = 1024 }")
        for name, value in (("limit", limit), ("buffer", buffer), ("target", target)):
            if value is not None and (not isinstance(value, int | float) or not value > 0):
                raise Refused(f"reward.options.length.{name} = {value!r} must be tokens above 0")
        if limit is not None and buffer is not None and buffer > limit:
            raise Refused(f"reward.options.length.buffer = {buffer} exceeds its limit = {limit}; lower it")
        self._limit, self._buffer, self._target = limit, buffer, target

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        return [self._score(item.length, self._limit or item.limit) for item in items]

    def _score(self, length: int, limit: int) -> float:
        if self._target is not None:
            return max(-1.0, -abs(length - self._target) / self._target)
        assert self._buffer is not None
        return min(0.0, max(-1.0, (limit - self._buffer - length) / self._buffer))


BUILT_IN: dict[str, Callable[..., Any]] = {
    "math": Math,
    "exact": Exact,
    "multiple_choice": MultipleChoice,
    "format": Format,
    "length": Length,
    "reasoning_gym": ReasoningGym,
}


def _texts(ground_truth: GroundTruth) -> tuple[str | int | float, ...]:
    return tuple(ground_truth) if isinstance(ground_truth, tuple | list) else (ground_truth,)


def _plain(text: str | int | float) -> str:
    return " ".join(str(text).split()).casefold()


def _verdict(answer: str, right: bool) -> Verdict:
    return Verdict("correct", "same text", answer, reward=1.0) if right else Verdict("wrong", "", answer)


def _letter(truth: str | int | float) -> str | None:
    """`B` of "B", "(b)", "B." and of the index 1."""
    text = str(truth).strip().strip("().[]:").strip().upper()
    if text.isdecimal() and int(text) < len(LETTERS):
        return LETTERS[int(text)]
    return text if len(text) == 1 and text in LETTERS else None


def _chosen(text: str) -> str | None:
    spans = boxes(text)
    if spans and (boxed := _BOX.match(text[slice(*spans[-1])][:100])):
        return boxed[1].upper()
    for form in (_ANSWER, _BRACKETS, _ALONE):
        if found := form.findall(text):
            return str(found[-1]).upper()
    return None
