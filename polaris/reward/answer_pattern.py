"""Which part of a text is its answer, as `data.answer` says it of golds and `reward.answer` of responses: a name, or a regular expression
with one group."""

from __future__ import annotations

import re
import string

from polaris.config.process import UNDERLINE
from polaris.errors import Refused
from polaris.reward.extract import BOXED, NO_FORM, UNFINISHED, boxes, final_answer, final_part
from polaris.types import Verdict

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}")
_WORD = re.compile(r"\banswer\b[\s*_\"'`]*[:\uff1a][ \t*_]*([^\s*_][^\n]*)", re.IGNORECASE)
PATTERNS = {  # linear on any text: a policy writes it, and no process that can be killed reads it
    "whole": re.compile(r"\A\s*(\S.*)", re.DOTALL),
    "####": re.compile(r"####[ \t]*(\S[^\n]*)"),
    "Answer:": _WORD,
    "<answer>": re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL),
    "boxed": _BOXED,
}
"""The names. `<answer>` takes what stands between the tags that reasoning-gym asks for; `####` and `Answer:` take the rest of their line,
`boxed` what stands between the braces of a `\\boxed{}`."""


def pattern(name: str, key: str) -> re.Pattern[str]:
    """The pattern behind a name or a regular expression; its one group is the answer.

    Raises:
        Refused: naming `key`, for no regular expression, or one without exactly one group.
    """
    expected = f"write {', '.join(PATTERNS)}, or a regular expression whose one group is the answer, such as '= (.+)$'"
    return PATTERNS[name] if name in PATTERNS else _of_one_group(name, key, expected)


def marker_pattern(marker: str) -> re.Pattern[str]:
    """The pattern behind a `reward.process.marker` that is not `underline`. Raises `Refused` for no regular expression with one group."""
    expected = f"write {UNDERLINE}, or a regular expression whose one group is a result, such as '=(-?\\d+)'"
    return _of_one_group(marker, "reward.process.marker", expected)


def _of_one_group(text: str, key: str, expected: str) -> re.Pattern[str]:
    try:
        found = re.compile(text)
    except re.error as error:
        raise Refused(f"{key} = {text!r} is no regular expression ({error}); {expected}") from error
    if found.groups != 1:
        raise Refused(f"{key} = {text!r} has {found.groups} groups; {expected}")
    return found


def extract(text: str, pattern: re.Pattern[str]) -> str | None:
    """The last answer in the text that is not blank, without white space around it; None if there is none.

    >>> extract("48 / 2 = 24, and 48 + 24 = 72. #### 72", pattern("####", "data.answer"))
    '72'
    """
    # Braces within braces are more than a regular expression counts.
    boxed = [text[start:end] for start, end in boxes(text)] if pattern is _BOXED else None
    found = [match[1] or "" for match in pattern.finditer(text)] if boxed is None else boxed
    dress = f"*{string.whitespace}" if pattern is _WORD else None
    return next((answer.strip(dress) for answer in reversed(found) if answer.strip(dress)), None)


def answer_of(response: str, form: str, require_thinking: bool, *, joined: bool = True) -> str | Verdict:
    """The text of a response's final answer in the form of `reward.answer`, or a verdict "no_answer" with the reason."""
    if form == BOXED:
        return final_answer(response, require_thinking, joined=joined)
    part = final_part(response, require_thinking)
    if isinstance(part, Verdict):
        return part
    text, unfinished = part
    found = extract(text, pattern(form, "reward.answer"))
    return Verdict("no_answer", UNFINISHED if unfinished else NO_FORM) if found is None else found


def is_own(form: str) -> bool:
    """Whether a form is a regular expression of the user's, which may never end on text that a policy writes."""
    return form not in PATTERNS
