"""From rows to problems, without a tokenizer: check columns, give ids, read messages and answers, drop repeated rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from polaris.data.gold import BadRow, Check, Rejected, rejected_answer
from polaris.data.reading import PLAIN, Reading
from polaris.data.rows import EXPECTED, has_answer, identity, read_ground_truth, read_messages, user_text
from polaris.data.sources import columns_of, lookup, read_rows
from polaris.errors import Refused
from polaris.reward.grade import accepted, ungradable_reason
from polaris.types import GroundTruth

_UNIQUE = "make `id`, `extra_info.id` or `extra_info.index` unique, or remove it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One row. `source` is `file:row`; `row` is the row as read; `fault` says why its answer is none; `copies` counts later rows with the
    same id and content."""

    id: str
    messages: list[dict[str, str]]
    ground_truth: GroundTruth
    source: str
    row: dict[str, Any]
    fault: str = ""
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


def survey(path: str, split: str, pass_rates: str | None = None, reading: Reading = PLAIN, check: Check = ungradable_reason) -> Survey:
    """All rows of a set (`polaris.data.sources`); repeated ones appear once.

    The id of a row is its `id`, else `extra_info.id`, else `extra_info.index`, else `row-<number>`, counted from 1. Seeds depend
    on it, so it does not depend on the folder or name of the file. Two rows of one id have the same content if messages, answers
    and the column `pass_rates`, if named, are the same. `check` says why nothing equals a ground truth; a set needs answers unless it
    accepts ().
    Raises `ValueError` for an unreadable set, or if no row has the columns of a problem and an answer, or one that the reading names.
    """
    seen, copies = dict[str, Problem](), Counter[str]()
    clashes, broken, errors = list[Rejected](), list[Rejected](), list[str]()
    answered, missing = check(()) is None, dict(reading.columns)
    for source, row in read_rows(path, split, reading):
        answered = answered or has_answer(row, reading)
        missing = {ours: theirs for ours, theirs in missing.items() if lookup(row, theirs) is None}
        try:
            problem = _read(row, source, reading)
        except BadRow as error:
            broken.append(Rejected(id=_identity(row, source, reading), source=source, reason=error.reason))
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
    for ours, theirs in missing.items():
        found = f"{problems[0].source} and all other rows have no column {theirs!r} (or nothing in it)"
        raise Refused(f"{found}, which is {reading.key}.columns.{ours}; there is {columns_of(problems[0].row)}")
    if not answered:
        columns = columns_of(problems[0].row)
        raise Refused(f"{problems[0].source} has no answer among the columns {columns}; expected {EXPECTED}, or name it: data.columns")
    return Survey(len(problems) + repeated(problems) + len(errors), problems, clashes, broken, errors)


def read_problems(
    path: str, split: str, pass_rates: str | None = None, reading: Reading = PLAIN, check: Check = ungradable_reason
) -> list[Problem]:
    """The problems of a set; any error of its `survey` is raised. Answers may still be ungradable (`rejected`).

    Raises `ValueError`, naming file and row, for a row without problem or answer, and for one with the id of another.
    """
    found = survey(path, split, pass_rates, reading, check)
    if found.errors:
        more = f" ({len(found.errors) - 1} more rows cannot be used; `polaris data check {path}` lists them)" if found.errors[1:] else ""
        raise Refused(found.errors[0] + more)
    return found.problems


def repeated(problems: Iterable[Problem]) -> int:
    """Number of rows that were dropped since an earlier one has the same id and content."""
    return sum(problem.copies for problem in problems)


def rejected(problem: Problem, check: Check = ungradable_reason) -> Rejected | None:
    """The data error of a problem that no response could solve; None if one could."""
    return rejected_answer(problem.id, problem.source, problem.ground_truth, check, problem.fault)


def instructed(messages: list[dict[str, str]], suffix: str) -> list[dict[str, str]]:
    """The messages with the suffix, after a space, at the end of the user's last one, unless it is there already."""
    changed = [dict(message) for message in messages]
    last = max(index for index, message in enumerate(changed) if message["role"] == "user")
    if suffix and not changed[last]["content"].rstrip().endswith(suffix):
        changed[last]["content"] += f" {suffix}"
    return changed


def _read(row: dict[str, Any], source: str, reading: Reading) -> Problem:
    messages, (truth, fault) = read_messages(row, source, reading), read_ground_truth(row, source, reading)
    if messages[-1]["role"] == "assistant":
        raise BadRow(source, "a chat that ends with the assistant", "end it with the user's message")
    return Problem(id=_identity(row, source, reading), messages=messages, ground_truth=truth, source=source, row=row, fault=fault)


def _identity(row: dict[str, Any], source: str, reading: Reading) -> str:
    return identity(row, reading) or f"row-{source.rpartition(':')[2]}"


def _content(problem: Problem, pass_rates: str | None) -> tuple[Any, ...]:
    """The parts that rows of one id must share. Answers are the texts that the grader compares, so `2` and `"2"` are the same;
    rejected answers, and pass rates, are as Python prints them, nan too."""
    answers = sorted(accepted(problem.ground_truth)) or repr(problem.ground_truth)
    return problem.messages, answers, repr(lookup(problem.row, pass_rates)) if pass_rates is not None else ""
