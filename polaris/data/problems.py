"""Rows as problems, before any tokenizer: columns checked, ids given, messages and answers read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from polaris.data.gold import Rejected, read_answers
from polaris.data.prompt import GroundTruth
from polaris.data.sources import read_rows
from polaris.errors import Refused
from polaris.reward.grade import ungradable_reason

EXPECTED = "`prompt` (chat messages) with `reward_model.ground_truth`, or `problem` or `question` with `answer`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One row: `source` is `file:row`, `row` the row as it was read."""

    id: str
    messages: list[dict[str, str]]
    ground_truth: GroundTruth
    source: str
    row: dict[str, Any]

    @property
    def text(self) -> str:
        """What the user says, without system messages and examples of answers."""
        return user_text(self.messages)


def read_problems(path: str, split: str) -> Iterator[Problem]:
    """The problems of a set (`polaris.data.sources`).

    The id of a row is its `id`, else `extra_info.id`, else `extra_info.index`, else `row-<number>`, counted from 1; it must be unique in
    the set. Seeds depend on it, so it says nothing of where the set lies or what its file is called.
    Raises `ValueError` naming file and row for a missing problem, a missing answer column, answers of another type, and duplicate ids.
    """
    seen: dict[str, str] = {}
    for number, (source, row) in enumerate(read_rows(path, split), start=1):
        problem = Problem(
            id=identity(row) or f"row-{number}",
            messages=read_messages(row, source),
            ground_truth=_ground_truth(row, source),
            source=source,
            row=row,
        )
        if problem.id in seen:
            raise Refused(
                f"{source} has the id {problem.id!r} of {seen[problem.id]}; make `id`, `extra_info.id` or `extra_info.index` unique, "
                "or remove it"
            )
        seen[problem.id] = source
        yield problem


def rejected(problem: Problem) -> Rejected | None:
    """The data error of a problem that no response could solve."""
    reason = ungradable_reason(problem.ground_truth)
    return Rejected(id=problem.id, source=problem.source, reason=reason) if reason else None


def identity(row: dict[str, Any]) -> str | None:
    """The id that a row gives itself; None if it gives none."""
    extra = row["extra_info"] if isinstance(row.get("extra_info"), dict) else {}
    found = next((value for value in (row.get("id"), extra.get("id"), extra.get("index")) if value is not None), None)
    return None if found is None else str(found)


def read_messages(row: dict[str, Any], source: str) -> list[dict[str, str]]:
    """The chat messages of a row, a bare problem as the user's; `ValueError` naming `source` if there is no problem in it."""
    column = next((name for name in ("prompt", "problem", "question") if name in row), None)
    if column is None:
        raise Refused(f"{source} has the columns {', '.join(map(str, row)) or '(none)'}; expected {EXPECTED}")
    value = row[column]
    messages = value if isinstance(value, list) else [{"role": "user", "content": value}]
    complete = all(isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages)
    if not complete or not any(m["role"] == "user" and m["content"].strip() for m in messages):
        raise Refused(f"{source} has no problem in `{column}`; expected text, or chat messages with the user's text; fix or remove the row")
    if any("\ud800" <= character <= "\udfff" for m in messages for character in m["content"]):
        raise Refused(f"{source} holds half of a surrogate pair, which is no Unicode text; fix or remove the row")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def instructed(messages: list[dict[str, str]], suffix: str) -> list[dict[str, str]]:
    """The messages with the suffix at the end of the user's last one, after a space; once, though the set may bring it along."""
    changed = [dict(message) for message in messages]
    last = max(index for index, message in enumerate(changed) if message["role"] == "user")
    if suffix and not changed[last]["content"].rstrip().endswith(suffix):
        changed[last]["content"] += f" {suffix}"
    return changed


def user_text(messages: list[dict[str, str]]) -> str:
    """What the user says in all messages together."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def _ground_truth(row: dict[str, Any], source: str) -> GroundTruth:
    reward_model = row.get("reward_model")
    if isinstance(reward_model, dict) and "ground_truth" in reward_model:
        return read_answers(reward_model["ground_truth"], source)
    if "answer" in row:
        return read_answers(row["answer"], source)
    raise Refused(f"{source} has no answer among the columns {', '.join(map(str, row))}; expected {EXPECTED}")
