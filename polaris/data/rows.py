"""What one row of a set says: its messages, its answer, its id."""

from __future__ import annotations

import re
from typing import Any

from polaris.data.gold import BadRow, read_answers
from polaris.data.reading import PLAIN, Reading
from polaris.data.sources import columns_of, lookup, nested
from polaris.reward.answer_pattern import extract
from polaris.types import GroundTruth

EXPECTED = "`prompt`, `problem`, `question` or `messages` (text or chat messages) with `answer` or `reward_model.ground_truth`"
_COLUMNS = ("prompt", "problem", "question", "messages")
_CHAT_AS_TEXT = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|content)[\"']")
_SURROGATE = re.compile("[\ud800-\udfff]")


def identity(row: dict[str, Any], reading: Reading = PLAIN) -> str | None:
    """The id that a row gives itself: in the column that is named, else `id`, `extra_info.id` or `extra_info.index`."""
    named = reading.columns.get("id")
    columns = ("id", "extra_info.id", "extra_info.index") if named is None else (named,)
    found = next((value for value in (lookup(row, column) for column in columns) if value is not None), None)
    return None if found is None else str(found)


def read_messages(row: dict[str, Any], source: str, reading: Reading = PLAIN) -> list[dict[str, str]]:
    """The chat messages of a row; a bare problem becomes the user's. A chat without a system message gets that of the row's system
    column, else the reading's. Raises `BadRow`, naming `source`, if the row has no problem."""
    column = reading.columns.get("prompt") or next((name for name in _COLUMNS if name in row), None)
    if column is None:
        remedy = f"expected {EXPECTED}, or name them: {reading.key}.columns (`polaris data check FILE`: --column)"
        raise BadRow(source, f"the columns {columns_of(row)}", remedy, f"none of the columns {', '.join(_COLUMNS)}")
    value = lookup(row, column)
    if value is None and "prompt" in reading.columns:
        remedy = f"there is {columns_of(row)}; correct {reading.key}.columns.prompt"
        raise BadRow(source, f"no column `{column}`", remedy, f"no column {column}")
    if isinstance(value, str) and _CHAT_AS_TEXT.match(value):
        value = nested(value)
        if isinstance(value, str):
            raise BadRow(source, f"chat messages in `{column}` as text that is not JSON", "write them as JSON, or as a list of objects")
    messages = value if isinstance(value, list) else [{"role": "user", "content": value}]
    complete = all(isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages)
    if not complete or not any(m["role"] == "user" and m["content"].strip() for m in messages):
        raise BadRow(source, f"no problem in `{column}`", "expected text, or chat messages with the user's text; fix or remove the row")
    if messages[0]["role"] != "system" and (system := _system(row, source, reading)):
        messages = [{"role": "system", "content": system}, *messages]
    check_unicode("".join(message["content"] for message in messages), source)
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def check_unicode(text: str, source: str) -> None:
    """Raise `BadRow` for half of a surrogate pair, which JSON can spell and no tokenizer takes."""
    if _SURROGATE.search(text):
        raise BadRow(source, "half of a surrogate pair, which is not Unicode text", "fix or remove the row")


def user_text(messages: list[dict[str, str]]) -> str:
    """The text of all of the user's messages."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def read_ground_truth(row: dict[str, Any], source: str, reading: Reading = PLAIN) -> tuple[GroundTruth, str]:
    """The accepted answers, () if the row has none; and why it has none, if the reading's pattern does not find any."""
    value = _answer(row, reading)
    if reading.pattern is None or value is None:
        return read_answers(value, source), ""
    texts = value if isinstance(value, list) else [value]
    found = [one for one in (extract(str(text), reading.pattern) for text in texts) if one is not None]
    if not found:
        return (), f"no answer by {reading.key}.answer = {reading.answer!r}"
    return read_answers(found[0] if len(found) == 1 else found, source), ""


def has_answer(row: dict[str, Any], reading: Reading = PLAIN) -> bool:
    """Whether the row has a column for its answer, be it empty."""
    named = reading.columns.get("answer")
    if named is not None:
        return lookup(row, named) is not None or named in row
    return "answer" in row or "ground_truth" in _object(row, "reward_model")


def _answer(row: dict[str, Any], reading: Reading) -> Any:
    if (named := reading.columns.get("answer")) is not None:
        return lookup(row, named)
    reward_model = _object(row, "reward_model")
    return reward_model["ground_truth"] if "ground_truth" in reward_model else row.get("answer")


def _system(row: dict[str, Any], source: str, reading: Reading) -> str:
    column = reading.columns.get("system")
    value = None if column is None else lookup(row, column)
    if value is not None and not isinstance(value, str):
        raise BadRow(source, f"a {type(value).__name__} in `{column}`", f"a system message is text; correct {reading.key}.columns.system")
    return value or reading.system_prompt


def _object(row: dict[str, Any], column: str) -> dict[str, Any]:
    """The object in a column, parsed if it is JSON text; {} if there is none."""
    value = nested(row.get(column))
    return value if isinstance(value, dict) else {}
