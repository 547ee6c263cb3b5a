"""Unpacking gold answers stored in another form: a JSON list, a quoted text, a GSM8K solution with the answer in its last line.

Only text that cannot be mathematics is unpacked. Answers never contain quotes, so `["390"]` is a list of alternatives, while
`[1, 2]` and `[0, 1)` are a list, a point or an interval and stay one answer. One number alone in brackets (`[390]`) is both.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

Answer = str | int | float

_LONGEST = 100_000
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_PYTHON = re.compile(rf"{_QUOTED.pattern}|\b(?:None|True|False)\b", re.DOTALL)
_WORDS = {"None": "null", "True": "true", "False": "false"}
# A JSON escape that begins a LaTeX macro: the text was not escaped, and `\\t` belongs to `\\times`.
_UNESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[bfrt][a-z]|n(?:eq?|u|i|ot|otin|abla|mid|leq|geq)(?![A-Za-z]))")
_SINGLE_BACKSLASH = re.compile(r"\\(?![\"'])")
_GSM8K = re.compile(r"(?:^|\n)[ \t]*####[ \t]*(\S[^\n]*)\s*\Z")
_ONE_NUMBER = re.compile(r"\[\s*(-?\d+(?:\.\d+)?)\s*\]")


@functools.lru_cache(maxsize=8192)
def alternatives(text: str) -> tuple[Answer, ...]:
    """The accepted answers that a gold text stands for; the text itself if it is an answer.

    `["390"]` and `['390']` are 390, `["1/2", "0.5"]` two alternatives, `"390"` in quotes is 390, `... #### 72` is 72.
    """
    stripped = text.strip()
    if found := _GSM8K.search(stripped):
        return (found[1].strip(),)
    if found := _ONE_NUMBER.fullmatch(stripped):
        return (found[1], stripped)
    value = unpacked(stripped)
    if isinstance(value, str):
        return (value,)
    items = flat(value) if isinstance(value, list) else None
    if not items or not all(item is None or _is_answer(item) for item in items):
        return (text,)
    return tuple(item for item in items if item is not None)


def unpacked(text: str) -> Any:
    """The list, object or text that a text with quotes holds, as JSON or as Python prints it; None for any other text.

    LaTeX in it may be escaped, as it should (`["\\\\frac12"]`), or not (`["\\frac12"]`).
    """
    if not text or text[0] not in "[{\"'" or len(text) > _LONGEST or not _QUOTED.search(text):
        return None
    spelled = _PYTHON.sub(_as_json, text)
    value = None if _UNESCAPED.search(spelled) else _parse(spelled)
    return _parse(_SINGLE_BACKSLASH.sub(r"\\\\", spelled)) if value is None else value


def flat(items: list[Any]) -> list[Any] | None:
    """The items, with lists of one item replaced by it. None if a list holds several, which may be alternatives or one answer."""
    found = []
    for item in items:
        while isinstance(item, list) and len(item) == 1:
            (item,) = item
        if isinstance(item, list):
            return None
        found.append(item)
    return found


def _is_answer(item: Any) -> bool:
    return isinstance(item, str | int | float) and not isinstance(item, bool)


def _as_json(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] != "'":
        return _WORDS.get(text, text)
    inner = re.sub(r'(?<!\\)"', r"\"", text[1:-1].replace("\\'", "'"))
    return f'"{inner}"'


def _parse(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
