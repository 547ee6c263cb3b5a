"""What is wrong with a prompt set, row by row, and which rows are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polaris.commands.dataset.answer_types import answer_type
from polaris.data.evaluation_sets import EvaluationSet, matches_by_set
from polaris.data.gold import Check, Rejected
from polaris.data.normalise import without_instruction
from polaris.data.overlap import Match, find_duplicates
from polaris.data.problems import Problem, rejected
from polaris.data.sources import write_rows
from polaris.reward.grade import accepted, ungradable_reason
from polaris.reward.pool import GraderPool, grade_in_batches
from polaris.types import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found in a whole set; numbers are positions in `problems`.

    `unequal` maps a problem to a gold answer and the verdict on it in a box, which is not "correct"; `duplicates` pairs a problem
    with the first of the same text, among gradable ones; `too_long` maps a problem to its number of tokens; `matches` is in the order
    of `evaluation_sets`. `dropped` maps a problem to the first of: ungradable, unequal, overlap, duplicate, too long. `in_boxes` says
    whether responses are graded by their boxes, so that golds were tried in one.
    """

    problems: Sequence[Problem]
    types: Counter[str]
    ungradable: Mapping[int, Rejected]
    unequal: Mapping[int, tuple[str, Verdict]]
    duplicates: Sequence[tuple[int, int]]
    too_long: Mapping[int, int]
    evaluation_sets: Sequence[EvaluationSet]
    matches: Sequence[Sequence[Match]]
    dropped: Mapping[int, str]
    in_boxes: bool = True


def check_problems(
    problems: Sequence[Problem],
    evaluation_sets: Sequence[EvaluationSet],
    pool: GraderPool,
    *,
    lengths: Sequence[int] | None,
    max_prompt_tokens: int,
    done: Callable[[int], None],
    check: Check = ungradable_reason,
    in_boxes: bool = True,
) -> Findings:
    """Look at every problem. `lengths` are tokens per prompt, None without a tokenizer; `done` gets the count of graded golds. `check`
    says why a ground truth is none; `in_boxes`: responses are graded by their boxes."""
    texts = without_instruction([problem.text for problem in problems])
    ungradable = {place: error for place, problem in enumerate(problems) if (error := rejected(problem, check))}
    gradable = [place for place in range(len(problems)) if place not in ungradable]
    unequal = _unequal(problems, gradable, pool, done) if in_boxes else {}
    duplicates = [(gradable[again], gradable[first]) for again, first in find_duplicates([texts[place] for place in gradable])]
    too_long = {place: length for place, length in enumerate(lengths or ()) if length > max_prompt_tokens}
    matches = matches_by_set(texts, evaluation_sets)
    reasons = (
        ("ungradable", ungradable),
        ("unequal to itself", unequal),
        ("overlap", [match.here for found in matches for match in found if match.overlap]),
        ("duplicate", [again for again, _ in duplicates]),
        ("too long", too_long),
    )
    dropped: dict[int, str] = {}
    for reason, places in reasons:
        dropped = dict.fromkeys(places, reason) | dropped
    return Findings(
        problems=problems,
        types=Counter(answer_type(problems[place].ground_truth) for place in gradable),
        ungradable=ungradable,
        unequal=unequal,
        duplicates=duplicates,
        too_long=too_long,
        evaluation_sets=evaluation_sets,
        matches=matches,
        dropped=dropped,
        in_boxes=in_boxes,
    )


def write_clean(found: Findings, path: Path) -> None:
    """Write the rows without an error as JSONL, as they were read; of repeated ones the first."""
    write_rows(path, (problem.row for place, problem in enumerate(found.problems) if place not in found.dropped))


def _unequal(
    problems: Sequence[Problem], places: Sequence[int], pool: GraderPool, done: Callable[[int], None]
) -> dict[int, tuple[str, Verdict]]:
    """Grade every alternative of each ground truth, in a box, against it; returns those that are not correct."""
    golds = [(place, gold) for place in places for gold in accepted(problems[place].ground_truth)]
    verdicts = grade_in_batches(pool, [(f"\\boxed{{{gold}}}", problems[place].ground_truth) for place, gold in golds], done)
    return {place: (gold, verdict) for (place, gold), verdict in zip(golds, verdicts, strict=True) if verdict.kind != "correct"}
