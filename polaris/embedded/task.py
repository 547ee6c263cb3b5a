"""The embedded task: running sums, the demonstrations the base model imitates, and the train and test problems.

A problem is `Compute 47+8-5+6.`: a number below 100, then 1 to 10 additions or subtractions of one digit that never leave
0..99. A careful solution writes every running total, `<think>47+8=55-5=50+6=56</think>\\boxed{56}`, so its length grows with
the number of operations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

LIMIT = 100
MAX_OPERATIONS = 10
TRAIN_SIZE, TEST_SIZE = 4096, 256
HASTE = 0.35
"""Share of demonstrations that do two or three operations in one step."""
SLIP = 0.03
"""Probability that a written total is wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`start` followed by the signed single digits `changes`."""

    start: int
    changes: tuple[int, ...]

    @property
    def text(self) -> str:
        return f"Compute {self.start}{''.join(f'{change:+d}' for change in self.changes)}."

    @property
    def answer(self) -> str:
        return str(self.start + sum(self.changes))


def draw_problem(rng: random.Random, operations: int) -> Problem:
    """A problem whose running totals all lie in 0..LIMIT-1."""
    start = total = rng.randrange(LIMIT)
    changes = []
    for _ in range(operations):
        change = rng.choice([c for c in range(-9, 10) if c and 0 <= total + c < LIMIT])
        changes.append(change)
        total += change
    return Problem(start, tuple(changes))


def solution(problem: Problem, operations_per_step: int = 1, slip: float = 0.0, rng: random.Random | None = None) -> str:
    """A response that writes the running total after every `operations_per_step` operations.

    With an `rng`, each written total is off by 1 or 10 with probability `slip`, and the work goes on from the wrong one.
    """
    total, work = problem.start, str(problem.start)
    for done, change in enumerate(problem.changes, start=1):
        total += change
        work += f"{change:+d}"
        if done % operations_per_step == 0 or done == len(problem.changes):
            if rng and rng.random() < slip:
                total = rng.choice([wrong for wrong in (total - 10, total - 1, total + 1, total + 10) if 0 <= wrong < LIMIT])
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
        yield problem, solution(problem, stride, SLIP, rng)


def problem_sets(seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """`TRAIN_SIZE` training and `TEST_SIZE` held-out problems, all distinct, with 1..`MAX_OPERATIONS` operations in equal shares."""
    rng = random.Random(seed)
    problems: dict[Problem, None] = {}
    while len(problems) < TRAIN_SIZE + TEST_SIZE:
        problems[draw_problem(rng, 1 + len(problems) % MAX_OPERATIONS)] = None
    ordered = list(problems)
    return ordered[TEST_SIZE:], ordered[:TEST_SIZE]
