"""Is the final answer of a response equal to the ground truth?

`decide` is string work that any process may do; `compare` runs a computer-algebra system on text that the policy wrote,
can take forever, and belongs into a process that someone may kill (`polaris.reward.pool`).
"""

from __future__ import annotations

import math
import re

from polaris.data.prompt import GroundTruth
from polaris.reward.verdict import Verdict

MAX_ANSWER_CHARS = 512
"""Longer answers are not parsed; the longest answer of MATH-500 has 159 characters."""

END_OF_THINKING = "</think>"
_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_WHOLE_BOX = re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL)
_SPACING = re.compile(r"(?<!\\)\\[!,;: ]|\\(?:left|right|displaystyle|quad|qquad)(?![a-zA-Z])|~")
_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_INTEGER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.0*)?")


def grade(response: str, ground_truth: GroundTruth, *, require_thinking: bool) -> Verdict:
    """Grade a whole response in this process; may not return (see the module's docstring)."""
    decided = decide(response, ground_truth, require_thinking=require_thinking)
    return decided if isinstance(decided, Verdict) else compare(decided, ground_truth)


def decide(response: str, ground_truth: GroundTruth, *, require_thinking: bool) -> Verdict | str:
    """The verdict where string and integer comparison settle it; else the answer that `compare` must judge.

    Only what follows the last `</think>` counts, and there only the last balanced `\\boxed{}`.
    """
    _, thought, final = response.rpartition(END_OF_THINKING)
    if require_thinking and not thought:
        return Verdict("no_answer", "no </think>")
    answer = last_boxed(final)
    if answer is None or not answer.strip():
        return Verdict("no_answer", "no \\boxed{}" if answer is None else "empty \\boxed{}")
    if len(answer) > MAX_ANSWER_CHARS:
        return Verdict("ungradable", f"answer longer than {MAX_ANSWER_CHARS} characters", answer[:MAX_ANSWER_CHARS])
    given = normalize(answer)
    matches = [_match(given, normalize(text)) for text in accepted(ground_truth)]
    if True in matches:
        return Verdict("correct", "same text or integer", answer)
    return answer if None in matches else Verdict("wrong", "another integer", answer)


def compare(answer: str, ground_truth: GroundTruth) -> Verdict:
    """Compare by algebra (Math-Verify). Its own limits use signals, which cannot interrupt C code, so they are off."""
    from math_verify import parse, verify

    given = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    for text in accepted(ground_truth):
        if verify(parse(f"\\boxed{{{text}}}", parsing_timeout=None), given, timeout_seconds=None):
            return Verdict("correct", "equal by algebra", answer)
    return Verdict("wrong", "" if given else "not parsed", answer)


def gradable(ground_truth: GroundTruth) -> bool:
    """Whether some response could ever be graded correct."""
    return bool(accepted(ground_truth))


def accepted(ground_truth: GroundTruth) -> list[str]:
    """The alternatives as text, 4.0 as `4`; those that no answer could equal (empty, too long, not finite) are left out."""
    alternatives = ground_truth if isinstance(ground_truth, tuple) else (ground_truth,)
    texts = [_text(alternative) for alternative in alternatives]
    return list(dict.fromkeys(text for text in texts if normalize(text) and len(text) <= MAX_ANSWER_CHARS))


def _text(alternative: str | int | float) -> str:
    if isinstance(alternative, str):
        return alternative.strip()
    if isinstance(alternative, float):
        return "" if not math.isfinite(alternative) else str(int(alternative)) if alternative.is_integer() else repr(alternative)
    return str(alternative)


def last_boxed(text: str) -> str | None:
    """Content of the `\\boxed{}` that closes last, braces balanced; None if none closes. Linear in the text's length."""
    opened: list[int | None] = []
    last = None
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and token[0] != "\\{":
            opened.append(None if token[0] == "{" else token.end())
        elif token[0] == "}" and opened and (start := opened.pop()) is not None:
            last = (start, token.start())
    return None if last is None else text[slice(*last)]


def normalize(text: str) -> str:
    """One spelling for what differs only in dress: surrounding `$` or box, spacing, `\\left`, `\\dfrac`."""
    text = text.strip().strip("$").removesuffix(".")
    if (box := _WHOLE_BOX.fullmatch(text)) and last_boxed(text) == box[1]:
        text = box[1]
    text = _SPACING.sub(" ", text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    return _LOOSE_SPACE.sub("", " ".join(text.split()))


def _match(given: str, truth: str) -> bool | None:
    """True or False where text or integers settle it, else None."""
    if given == truth:
        return True
    if _INTEGER.fullmatch(given) and _INTEGER.fullmatch(truth):
        return _integer(given) == _integer(truth)
    return None


def _integer(text: str) -> int:
    return int(text.partition(".")[0].replace(",", ""))
