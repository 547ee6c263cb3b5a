"""Which samples of a problem vote for the same answer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from polaris.evaluation.metrics import CORRECT
from polaris.reward.extract import END_OF_THINKING
from polaris.reward.pool import GraderPool
from polaris.types import Verdict


def votes_of(verdicts: Sequence[Verdict], pool: GraderPool) -> list[Hashable | None]:
    """For each verdict on one problem the class of its answer, in their order: `CORRECT`, None for no answer, or else a text.

    An answer joins the first class whose first answer the grader finds equal to it, and opens one where there is none.
    """
    classes: dict[str, str] = {}
    votes: list[Hashable | None] = []
    for verdict in verdicts:
        if verdict.kind == "correct" or verdict.answer is None:
            votes.append(CORRECT if verdict.kind == "correct" else None)
            continue
        answer = verdict.answer.strip()
        if answer not in classes:
            classes[answer] = _class(answer, list(dict.fromkeys(classes.values())), pool)
        votes.append(classes[answer])
    return votes


def _class(answer: str, known: list[str], pool: GraderPool) -> str:
    response = f"{END_OF_THINKING}\\boxed{{{answer}}}"
    equal = pool.grade([(response, first) for first in known])
    return next((first for first, verdict in zip(known, equal, strict=True) if verdict.kind == "correct"), answer)
