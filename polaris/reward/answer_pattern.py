"""Which part of a text is its answer, as `data.answer` says it of golds: a name, or a regular expression with one group."""

from __future__ import annotations

import re

from polaris.errors import Refused
from polaris.reward.extract import boxes

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}")
PATTERNS = {
    "whole": re.compile(r"\A\s*(.*\S)", re.DOTALL),
    "####": re.compile(r"####[ \t]*([^\n]*[^\s])"),
    "Answer:": re.compile(r"\banswer\b[\s*_\"'`]*[:\uff1a][ \t*_]*([^\n]*[^\s*])", re.IGNORECASE),
    "boxed": _BOXED,
}
"""The names. `####` and `Answer:` take the rest of their line, `boxed` what stands between the braces of a `\\boxed{}`."""


def pattern(name: str, key: str) -> re.Pattern[str]:
    """The pattern behind a name or a regular expression; its one group is the answer.

    Raises:
        Refused: naming `key`, for no regular expression, or one without exactly one group.
    """
    if name in PATTERNS:
        return PATTERNS[name]
    expected = f"write {', '.join(PATTERNS)}, or a regular expression whose one group is the answer, such as '= (.+)$'"
    try:
        found = re.compile(name)
    except re.error as error:
        raise Refused(f"{key} = {name!r} is no regular expression ({error}); {expected}") from error
    if found.groups != 1:
        raise Refused(f"{key} = {name!r} has {found.groups} groups; {expected}")
    return found


def extract(text: str, pattern: re.Pattern[str]) -> str | None:
    """The last answer in the text that is not blank, without white space around it; None if there is none.

    >>> extract("48 / 2 = 24, and 48 + 24 = 72. #### 72", pattern("####", "data.answer"))
    '72'
    """
    # Braces within braces are more than a regular expression counts.
    boxed = [text[start:end] for start, end in boxes(text)] if pattern is _BOXED else None
    found = [match[1] or "" for match in pattern.finditer(text)] if boxed is None else boxed
    return next((answer.strip() for answer in reversed(found) if answer.strip()), None)
