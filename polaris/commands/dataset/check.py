"""What is wrong with a prompt set, row by row, and which rows are left without it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polaris.commands.dataset.answer_types import answer_type
from polaris.data.evaluation_sets import EvaluationSet, matches_by_set
from polaris.data.gold import Rejected
from polaris.data.normalise import without_instruction
from polaris.data.overlap import Match, find_duplicates
from polaris.data.problems import Problem, rejected
from polaris.files import write_atomically
from polaris.reward.grade import accepted
from polaris.reward.pool import GraderPool, grade_in_batches
from polaris.types import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Findings over a whole set; numbers are positions in `problems`.

    `unequal` maps a problem to its gold in a box and the verdict on it, which is not "correct"; `duplicates` pairs a problem with
    the first of the same text, among gradable ones; `too_long` maps a problem to its tokens; `matches` belongs to the evaluation
    set of the same place. `dropped` maps a problem to the first of: ungradable, unequal, overlap, duplicate, too long.
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


def check(
    problems: Sequence[Problem],
    evaluation_sets: Sequence[EvaluationSet],
    pool: GraderPool,
    *,
    lengths: Sequence[int] | None,
    max_prompt_tokens: int,
    done: Callable[[int], None],
) -> Check:
    """Look at every problem. `lengths` are tokens per prompt, None if there is no tokenizer to tell; `done` hears of graded golds."""
    texts = without_instruction([problem.text for problem in problems])
    ungradable = {place: error for place, problem in enumerate(problems) if (error := rejected(problem))}
    gradable = [place for place in range(len(problems)) if place not in ungradable]
    unequal = _unequal(problems, gradable, pool, done)
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
    return Check(
        problems=problems,
        types=Counter(answer_type(problems[place].ground_truth) for place in gradable),
        ungradable=ungradable,
        unequal=unequal,
        duplicates=duplicates,
        too_long=too_long,
        evaluation_sets=evaluation_sets,
        matches=matches,
        dropped=dropped,
    )


def write_clean(found: Check, path: Path) -> None:
    """Write the rows that nothing is wrong with as JSONL, as they were read; of repeated ones the first."""
    kept = (problem.row for place, problem in enumerate(found.problems) if place not in found.dropped)
    lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in kept)
    # Half of a surrogate pair in another column is legal in JSON and no Unicode text.
    write_atomically(path, lines.encode(errors="backslashreplace"))


def _unequal(
    problems: Sequence[Problem], places: Sequence[int], pool: GraderPool, done: Callable[[int], None]
) -> dict[int, tuple[str, Verdict]]:
    """Every alternative of a ground truth, in a box, must be correct against it."""
    golds = [(place, gold) for place in places for gold in accepted(problems[place].ground_truth)]
    verdicts = grade_in_batches(pool, [(f"\\boxed{{{gold}}}", problems[place].ground_truth) for place, gold in golds], done)
    return {place: (gold, verdict) for (place, gold), verdict in zip(golds, verdicts, strict=True) if verdict.kind != "correct"}
