"""Numbers of an evaluation from counts and votes; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from polaris.reward.extract import END_OF_THINKING
from polaris.reward.pool import GraderPool
from polaris.types import Verdict

CORRECT = object()
"""The class of all answers that the grader finds correct."""


def maj_at_k(votes: Sequence[Hashable | None], k: int) -> float:
    """Share of correct majority votes over the disjoint runs of `k` consecutive samples: unbiased for maj@k.

    `votes` are classes of equal answers in the order of the samples: `CORRECT` for correct ones, None for no answer (no vote).
    If several classes tie, the vote counts as the share of them that is correct (0 or 1 / ties), the mean of random tie breaks.
    """
    assert 1 <= k <= len(votes)
    starts = range(0, len(votes) - k + 1, k)
    return sum(_majority(votes[start : start + k]) for start in starts) / len(starts)


def counts_of_samples(samples: int) -> list[int]:
    """The values of k for pass@k and maj@k: 1, 2, 4, ... below `samples`, and `samples`."""
    return [*(2**power for power in range((samples - 1).bit_length())), samples]


def quartiles(lengths: Sequence[int]) -> tuple[int, ...]:
    """Rising edges, in tokens, that cut responses into four buckets of about the same size; fewer where lengths repeat."""
    edges = sorted({int(np.ceil(edge)) for edge in np.quantile(lengths, (0.25, 0.5, 0.75))})
    return tuple(edge for edge in edges if edge > 0)


def bucket_of(length: int, edges: Sequence[int]) -> int:
    """The bucket i with edges[i - 1] <= length < edges[i]; the last bucket has no upper edge."""
    return int(np.searchsorted(np.asarray(edges), length, side="right"))


def _majority(votes: Sequence[Hashable | None]) -> float:
    counted = Counter(vote for vote in votes if vote is not None)
    most = max(counted.values(), default=0)
    winners = [vote for vote, count in counted.items() if count == most]
    return winners.count(CORRECT) / len(winners) if winners else 0.0


def votes_of(verdicts: Sequence[Verdict], pool: GraderPool) -> list[Hashable | None]:
    """The class of each verdict's answer to one problem: `CORRECT`, None for no answer, or else a text.

    An answer joins the first class whose first answer the grader finds equal to it, else it opens a new class.
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
