"""The embedded task: running sums, the demonstrations the base model imitates, and the train and test problems.

A problem is `Compute 47+8-5+6.`: a number below 100 and 1 to 10 additions and subtractions of single digits that never
leave 0..99. A careful solution carries every running total, `<think>47+8=55-5=50+6=56</think>\\boxed{56}`, so its length
grows with the number of operations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

MAX_OPERATIONS = 10
LIMIT = 100
TRAIN_SIZE, TEST_SIZE = 4096, 256
HASTE = 0.35
"""Probability that a demonstration is by a hasty writer."""
SLIP = 0.03
"""Probability that a written total is wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`start` followed by the signed single digits `changes`."""

    start: int
    changes: tuple[int, ...]

    @property
    def text(self) -> str:
        return f"Compute {self.start}{''.join(f'{c:+d}' for c in self.changes)}."

    @property
    def answer(self) -> str:
        return str(self.start + sum(self.changes))


def draw_problem(rng: random.Random, operations: int) -> Problem:
    """A problem whose running totals all lie in 0..99."""
    start = total = rng.randrange(LIMIT)
    changes = []
    for _ in range(operations):
        change = rng.choice([c for c in range(-9, 10) if c and 0 <= total + c < LIMIT])
        changes.append(change)
        total += change
    return Problem(start, tuple(changes))


def _slip(rng: random.Random, total: int) -> int:
    return rng.choice([t for t in (total - 10, total - 1, total + 1, total + 10) if 0 <= t < LIMIT])


def solution(problem: Problem, *, operations_per_step: int = 1, slip: float = 0.0, rng: random.Random | None = None) -> str:
    """A worked response that writes the running total after every `operations_per_step` operations.

    Each written total is wrong with probability `slip` (drawn from `rng`), and the work goes on from the wrong one.
    """
    total, work = problem.start, str(problem.start)
    for done, change in enumerate(problem.changes, start=1):
        total += change
        work += f"{change:+d}"
        if done % operations_per_step == 0 or done == len(problem.changes):
            if rng is not None and rng.random() < slip:
                total = _slip(rng, total)
            work += f"={total}"
    return f"<think>{work}</think>\\boxed{{{total}}}"


def demonstrations(seed: int, excluded: frozenset[Problem]) -> Iterator[tuple[Problem, str]]:
    """Endless (problem, response) pairs of mixed quality, as a pretraining corpus has them: see `HASTE` and `SLIP`."""
    rng = random.Random(seed)
    while True:
        problem = draw_problem(rng, rng.randint(1, MAX_OPERATIONS))
        if problem in excluded:
            continue
        stride = rng.choice((2, 3)) if rng.random() < HASTE else 1
        yield problem, solution(problem, operations_per_step=stride, slip=SLIP, rng=rng)


def problem_sets(seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """`TRAIN_SIZE` training and `TEST_SIZE` held-out problems, all distinct, difficulties 1..`MAX_OPERATIONS` in turn."""
    rng = random.Random(seed)
    problems: dict[Problem, None] = {}
    while len(problems) < TRAIN_SIZE + TEST_SIZE:
        problems[draw_problem(rng, 1 + len(problems) % MAX_OPERATIONS)] = None
    ordered = list(problems)
    return ordered[TEST_SIZE:], ordered[:TEST_SIZE]
