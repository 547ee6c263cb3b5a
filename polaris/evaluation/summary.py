"""From all samples of one set to its numbers; each mean has an interval over problems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from polaris.algorithm.rates import pass_at_k, wilson_interval
from polaris.evaluation.metrics import bucket_of, counts_of_samples, maj_at_k, quartiles, votes_of
from polaris.evaluation.scoring import Scored
from polaris.evaluation.suites import Suite
from polaris.observe.progress import progress
from polaris.reward import no_answer
from polaris.reward.pool import GraderPool

_THREADS = 16


def summarise_suite(suite: Suite, scored: Sequence[Scored], edges: Sequence[int], pool: GraderPool) -> dict[str, Any]:
    """Numbers of one set at one YaRN factor; every problem has `suite.samples` samples in `scored`.

    `correct` counts correct samples by problem, for `polaris eval compare`.
    Shares and rates are of responses and lie in 0..1; avg@n, pass@k and maj@k are means over problems with 95% intervals.
    """
    n = suite.samples
    by_problem: dict[str, list[Scored]] = defaultdict(list)
    for one in sorted(scored, key=lambda one: one.key):
        by_problem[one.key.problem].append(one)
    groups = list(by_problem.values())
    assert len(groups) == len(suite.problems)
    assert all(len(group) == n for group in groups)
    correct = [int(sum(one.strict.reward for one in group)) for group in groups]
    votes = _votes(suite.name, groups, pool)
    return {
        "problems": len(groups),
        "samples": n,
        "correct": {group[0].key.problem: count for group, count in zip(groups, correct, strict=True)},
        "avg": _mean([count / n for count in correct]),
        "avg_recipe": _mean([sum(one.recipe.reward for one in group) / n for group in groups]),
        "pass": {str(k): _mean([pass_at_k(n, count, k) for count in correct]) for k in counts_of_samples(n)},
        "maj": {str(k): _mean([maj_at_k(vote, k) for vote in votes]) for k in counts_of_samples(n)},
        "no_answer": _share([one.strict.kind == "no_answer" for one in scored]),
        "no_answer_reasons": no_answer.count(no_answer.reason(one.strict, one.finish_reason == "length") for one in scored),
        "ungradable": _share([one.strict.kind == "ungradable" for one in scored]),
        "grader_killed": sum(one.strict.lost for one in scored),
        **_lengths(scored),
        "buckets": _buckets(scored, edges),
        "disagreements": _disagreements(suite, scored),
    }


def _votes(name: str, groups: Sequence[Sequence[Scored]], pool: GraderPool) -> list[list[Hashable | None]]:
    """`votes_of` every problem, in threads that keep the pool busy."""
    votes = []
    with ThreadPoolExecutor(_THREADS) as threads, progress(f"votes of {name}", len(groups)) as done:
        for one in threads.map(lambda group: votes_of([scored.strict for scored in group], pool), groups):
            votes.append(one)
            done(len(votes))
    return votes


def _mean(values: Sequence[float]) -> dict[str, float]:
    low, high = wilson_interval(np.asarray(values, dtype=np.float64))
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _lengths(scored: Sequence[Scored]) -> dict[str, float]:
    tokens = [one.tokens for one in scored]
    clipped = _share([one.finish_reason == "length" for one in scored])
    return {"clipped": clipped, "tokens": sum(tokens), "length_mean": float(np.mean(tokens))}


def _buckets(scored: Sequence[Scored], edges: Sequence[int]) -> list[dict[str, Any]]:
    """Accuracy and clip ratio of the responses by their own length; no edges means quartiles."""
    edges = list(edges) or quartiles([one.tokens for one in scored])
    buckets: list[list[Scored]] = [[] for _ in range(len(edges) + 1)]
    for one in scored:
        buckets[bucket_of(one.tokens, edges)].append(one)
    return [
        {
            "from": start,
            "below": end,
            "responses": len(bucket),
            "accuracy": sum(one.strict.reward for one in bucket) / len(bucket) if bucket else None,
            "clipped": _share([one.finish_reason == "length" for one in bucket]) if bucket else None,
        }
        for start, end, bucket in zip([0, *edges], [*edges, None], buckets, strict=True)
    ]


def _disagreements(suite: Suite, scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Samples that one grader finds correct and the other does not."""
    answers = {problem.id: problem.ground_truth for problem in suite.problems}
    return [
        {
            "problem": one.key.problem,
            "sample": one.key.sample,
            "strict": one.strict.kind,
            "recipe": one.recipe.kind,
            "answer": one.strict.answer if one.strict.answer is not None else one.recipe.answer,
            "ground_truth": answers[one.key.problem],
        }
        for one in sorted(scored, key=lambda one: one.key)
        if one.strict.reward != one.recipe.reward
    ]
