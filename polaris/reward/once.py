"""`polaris.grade`: the verdict on one response, from a program of your own, by a process that can be killed."""

from __future__ import annotations

import atexit
import functools

from polaris.config.names import instead
from polaris.errors import Refused
from polaris.reward.answer_pattern import PATTERNS
from polaris.reward.extract import BOXED
from polaris.reward.pool import GraderPool
from polaris.types import GroundTruth, Verdict


def grade(
    response: str, ground_truth: GroundTruth, *, answer: str = BOXED, require_thinking: bool = False, timeout_s: float = 5.0
) -> Verdict:
    """The math grader's verdict. No response can hang it: after `timeout_s` it is ungradable("timeout").

    `answer` says where the answer is, as `reward.answer` does: "boxed", "####", "Answer:" or "whole". The grading process
    starts with the first call and ends with the program. For many responses take `polaris.reward.pool.GraderPool`.

    >>> from polaris import grade
    >>> grade("so it is \\\\boxed{1/2}", "0.5").kind
    'correct'

    Raises:
        Refused: `answer` names no part of a response.
    """
    return _pool(answer, require_thinking, timeout_s).grade([(response, ground_truth)])[0]


@functools.cache
def _pool(answer: str, require_thinking: bool, timeout_s: float) -> GraderPool:
    if answer not in PATTERNS:
        raise Refused(f"grade: answer = {answer!r} is no form of an answer; {instead(answer, PATTERNS, '')}")
    pool = GraderPool(1, timeout_s, require_thinking, form=answer)
    atexit.register(pool.close)
    return pool
