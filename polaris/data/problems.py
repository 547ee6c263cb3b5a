"""From rows to problems, without a tokenizer: check columns, give ids, read messages and answers, drop repeated rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from polaris.data.gold import BadRow, Rejected, read_answers, rejected_answer
from polaris.data.sources import nested, read_rows
from polaris.errors import Refused
from polaris.reward.grade import accepted
from polaris.types import GroundTruth

EXPECTED = "`prompt`, `problem` or `question` (text or chat messages) with `answer` or `reward_model.ground_truth`"
_UNIQUE = "make `id`, `extra_info.id` or `extra_info.index` unique, or remove it"
_COLUMNS = ("prompt", "problem", "question")
_CHAT_AS_TEXT = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|content)[\"']")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One row. `source` is `file:row`; `row` is the row as read; `copies` counts later rows with the same id and content."""

    id: str
    messages: list[dict[str, str]]
    ground_truth: GroundTruth
    source: str
    row: dict[str, Any]
    copies: int = 0

    @property
    def text(self) -> str:
        """The text of the user's messages, without those of system and assistant."""
        return user_text(self.messages)


@dataclass(frozen=True, slots=True)
class Survey:
    """All `rows` of a set. `problems` may have ungradable answers; `clashes` have the id of an earlier row but other content;
    `broken` rows have no usable problem or answer. `errors` are the messages of the last two.
    """

    rows: int
    problems: list[Problem]
    clashes: list[Rejected]
    broken: list[Rejected]
    errors: list[str]


def survey(path: str, split: str, pass_rates: str | None = None) -> Survey:
    """All rows of a set (`polaris.data.sources`); repeated ones appear once.

    The id of a row is its `id`, else `extra_info.id`, else `extra_info.index`, else `row-<number>`, counted from 1. Seeds depend
    on it, so it does not depend on the folder or name of the file. Two rows of one id have the same content if messages, answers
    and the column `pass_rates`, if named, are the same.
    Raises `ValueError` for an unreadable set, or if no row has the columns of a problem and an answer.
    """
    seen, copies = dict[str, Problem](), Counter[str]()
    clashes, broken, errors = list[Rejected](), list[Rejected](), list[str]()
    answered = False
    for source, row in read_rows(path, split):
        answered = answered or _has_answer(row)
        try:
            problem = _read(row, source)
        except BadRow as error:
            broken.append(Rejected(id=_identity(row, source), source=source, reason=error.reason))
            errors.append(str(error))
            continue
        first = seen.setdefault(problem.id, problem)
        if first is not problem and _content(first, pass_rates) == _content(problem, pass_rates):
            copies[problem.id] += 1
        elif first is not problem:
            clashes.append(Rejected(id=problem.id, source=source, reason=f"other content than {first.source}, which has the same id"))
            errors.append(f"{source} has other content but the id {problem.id!r} of {first.source}; {_UNIQUE}")
    if not seen:
        raise Refused(errors[0])
    problems = [replace(problem, copies=copies[problem.id]) for problem in seen.values()]
    if not answered:
        columns = ", ".join(map(str, problems[0].row))
        raise Refused(f"{problems[0].source} has no answer among the columns {columns}; expected {EXPECTED}")
    return Survey(len(problems) + repeated(problems) + len(errors), problems, clashes, broken, errors)


def read_problems(path: str, split: str, pass_rates: str | None = None) -> list[Problem]:
    """The problems of a set; any error of its `survey` is raised. Answers may still be ungradable (`rejected`).

    Raises `ValueError`, naming file and row, for a row without problem or answer, and for one with the id of another.
    """
    found = survey(path, split, pass_rates)
    if found.errors:
        more = f" ({len(found.errors) - 1} more rows cannot be used; `polaris data check {path}` lists them)" if found.errors[1:] else ""
        raise Refused(found.errors[0] + more)
    return found.problems


def repeated(problems: Iterable[Problem]) -> int:
    """Number of rows that were dropped since an earlier one has the same id and content."""
    return sum(problem.copies for problem in problems)


def rejected(problem: Problem) -> Rejected | None:
    """The data error of a problem that no response could solve; None if one could."""
    return rejected_answer(problem.id, problem.source, problem.ground_truth)


def identity(row: dict[str, Any]) -> str | None:
    """The id that a row gives itself; None if it gives none."""
    extra = _object(row, "extra_info")
    found = next((value for value in (row.get("id"), extra.get("id"), extra.get("index")) if value is not None), None)
    return None if found is None else str(found)


def read_messages(row: dict[str, Any], source: str) -> list[dict[str, str]]:
    """The chat messages of a row; a bare problem becomes the user's. Raises `BadRow`, naming `source`, if it has no problem."""
    column = next((name for name in _COLUMNS if name in row), None)
    if column is None:
        found = f"the columns {', '.join(map(str, row)) or '(none)'}"
        raise BadRow(source, found, f"expected {EXPECTED}", f"none of the columns {', '.join(_COLUMNS)}")
    value = row[column]
    if isinstance(value, str) and _CHAT_AS_TEXT.match(value):
        value = nested(value)
        if isinstance(value, str):
            raise BadRow(source, f"chat messages in `{column}` as text that is not JSON", "write them as JSON, or as a list of objects")
    messages = value if isinstance(value, list) else [{"role": "user", "content": value}]
    complete = all(isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages)
    if not complete or not any(m["role"] == "user" and m["content"].strip() for m in messages):
        raise BadRow(source, f"no problem in `{column}`", "expected text, or chat messages with the user's text; fix or remove the row")
    if any(_SURROGATE.search(message["content"]) for message in messages):
        raise BadRow(source, "half of a surrogate pair, which is not Unicode text", "fix or remove the row")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def instructed(messages: list[dict[str, str]], suffix: str) -> list[dict[str, str]]:
    """The messages with the suffix, after a space, at the end of the user's last one, unless it is there already."""
    changed = [dict(message) for message in messages]
    last = max(index for index, message in enumerate(changed) if message["role"] == "user")
    if suffix and not changed[last]["content"].rstrip().endswith(suffix):
        changed[last]["content"] += f" {suffix}"
    return changed


def user_text(messages: list[dict[str, str]]) -> str:
    """The text of all of the user's messages."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def _read(row: dict[str, Any], source: str) -> Problem:
    messages, truth = read_messages(row, source), _ground_truth(row, source)
    if messages[-1]["role"] == "assistant":
        raise BadRow(source, "a chat that ends with the assistant", "end it with the user's message")
    return Problem(id=_identity(row, source), messages=messages, ground_truth=truth, source=source, row=row)


def _identity(row: dict[str, Any], source: str) -> str:
    return identity(row) or f"row-{source.rpartition(':')[2]}"


def _object(row: dict[str, Any], column: str) -> dict[str, Any]:
    """The object in a column, parsed if it is JSON text; {} if there is none."""
    value = nested(row.get(column))
    return value if isinstance(value, dict) else {}


def _has_answer(row: dict[str, Any]) -> bool:
    return "answer" in row or "ground_truth" in _object(row, "reward_model")


def _ground_truth(row: dict[str, Any], source: str) -> GroundTruth:
    """() if the row has no answer."""
    reward_model = _object(row, "reward_model")
    return read_answers(reward_model["ground_truth"] if "ground_truth" in reward_model else row.get("answer"), source)


def _content(problem: Problem, pass_rates: str | None) -> tuple[Any, ...]:
    """The parts that rows of one id must share. Answers are the texts that the grader compares, so `2` and `"2"` are the same;
    rejected answers, and pass rates, are as Python prints them, nan too."""
    answers = sorted(accepted(problem.ground_truth)) or repr(problem.ground_truth)
    return problem.messages, answers, repr(problem.row.get(pass_rates)) if pass_rates is not None else ""
