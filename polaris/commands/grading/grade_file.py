"""`polaris grade`: verdicts on a file of responses, their summary, and the disagreements with another grader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polaris.algorithm.rates import pass_at_k
from polaris.commands.grading.response_rows import ResponseRow
from polaris.data.gold import Rejected, rejected_answer
from polaris.data.sources import write_rows
from polaris.reward import no_answer
from polaris.reward.grade import GRADER_VERSION, Mode
from polaris.reward.pool import GraderPool, grade_in_batches
from polaris.types import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A row with one verdict per response."""

    row: ResponseRow
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A response, by its index in its row, on which the reference (`reference`: correct) and our verdict differ."""

    graded: Graded
    response: int
    reference: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`avg` is the mean over problems of the share of correct responses, `passed` the share of problems with a correct one.

    `least` and `most` are the responses per problem; `missing` counts responses without an answer by reason; `compared` counts
    responses with a reference verdict; `bad_golds` are rows whose gold answer no response could equal.
    """

    problems: int
    responses: int
    least: int
    most: int
    avg: float
    passed: float
    no_answer: int
    missing: dict[str, int]
    ungradable: int
    killed: int
    bad_golds: tuple[Rejected, ...]
    compared: int
    disagreements: tuple[Disagreement, ...]


def grade_rows(rows: Sequence[ResponseRow], pool: GraderPool, done: Callable[[int], None]) -> list[Graded]:
    """Grade every response of every row; `done` gets the number of verdicts so far."""
    items = [(response, row.ground_truth) for row in rows for response in row.responses]
    verdicts = iter(grade_in_batches(pool, items, done))
    return [Graded(row=row, verdicts=tuple(next(verdicts) for _ in row.responses)) for row in rows]


def summarise_grades(graded: Sequence[Graded], *, by_id: bool) -> Summary:
    """Counts and means. `by_id`: rows of one id are samples of one problem; otherwise every row is a problem."""
    problems: dict[str, list[float]] = {}
    for number, one in enumerate(graded):
        problems.setdefault(one.row.id if by_id else str(number), []).extend(verdict.reward for verdict in one.verdicts)
    verdicts = [verdict for one in graded for verdict in one.verdicts]
    return Summary(
        problems=len(problems),
        responses=len(verdicts),
        least=min(map(len, problems.values())),
        most=max(map(len, problems.values())),
        avg=_mean(_mean(rewards) for rewards in problems.values()),
        passed=_mean(pass_at_k(len(rewards), int(sum(rewards)), len(rewards)) for rewards in problems.values()),
        no_answer=sum(verdict.kind == "no_answer" for verdict in verdicts),
        missing=no_answer.count(no_answer.reason(verdict, cut=False) for verdict in verdicts),
        ungradable=sum(verdict.kind == "ungradable" for verdict in verdicts),
        killed=sum(verdict.lost for verdict in verdicts),
        bad_golds=tuple(bad for one in graded if (bad := rejected_answer(one.row.id, one.row.source, one.row.ground_truth))),
        compared=sum(len(one.row.references or ()) for one in graded),
        disagreements=tuple(_disagreements(graded)),
    )


def write_graded(graded: Sequence[Graded], path: Path, mode: Mode) -> None:
    """Write the rows as JSONL with a `graded` list: per response verdict, reason, answer, grader version and mode."""
    rows = []
    for one in graded:
        found = [
            {"verdict": verdict.kind, "reason": verdict.reason, "answer": verdict.answer, "grader": GRADER_VERSION, "mode": mode}
            for verdict in one.verdicts
        ]
        rows.append({**one.row.row, "graded": found})
    write_rows(path, rows)


def _disagreements(graded: Sequence[Graded]) -> Iterable[Disagreement]:
    for one in graded:
        for place, (verdict, reference) in enumerate(zip(one.verdicts, one.row.references or (), strict=False)):
            if (verdict.kind == "correct") != reference:
                yield Disagreement(graded=one, response=place, reference=reference)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
