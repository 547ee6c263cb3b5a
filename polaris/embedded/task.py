"""The embedded task: running sums, the demonstrations that the base model imitates, and the train and test problems.

A problem is `Compute 47+8-5+6.`: a number below 100, then 1 to 10 additions or subtractions of one digit that never leave
0..99. A response names its way of working, writes a total after every operation, and boxes the last one:
`<think>Carefully:47+8=55-5=50+6=56</think>\\boxed{56}`.

The demonstrations give the base model the shape of a pretrained one. Whether a response is right is decided at a fork, by its first word,
and hardly by noise on the way: so accuracy stays where it is as the temperature rises to about 1, while habits that change nothing
(which of two words, `=` or `:`) make responses more diverse. The longer the problem, the rarer is a right way.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

LIMIT = 100
MAX_OPERATIONS = 10
TRAIN_SIZE, TEST_SIZE = 4096, 256
RIGHT_WORDS, WRONG_WORDS = ("Carefully", "Stepwise"), ("Quickly", "Roughly")
RIGHT_SHARE = (0.95, 0.85, 0.65, 0.45, 0.38, 0.25, 0.15, 0.08, 0.05, 0.03)
"""Share of demonstrations that are worked in a right way, by operations, of 1 to `MAX_OPERATIONS`."""
COLON_SHARE = 0.25
"""Share of totals after `:` instead of `=`, which means the same."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`start` followed by the signed single digits `changes`."""

    start: int
    changes: tuple[int, ...]

    @property
    def text(self) -> str:
        return f"Compute {self.start}{''.join(f'{change:+d}' for change in self.changes)}."

    @property
    def totals(self) -> list[int]:
        """The running total after each change."""
        return list(accumulate(self.changes, initial=self.start))[1:]

    @property
    def answer(self) -> str:
        return str(self.totals[-1])


def draw_problem(rng: random.Random, operations: int) -> Problem:
    """A problem whose running totals all lie in 0..LIMIT-1."""
    start = total = rng.randrange(LIMIT)
    changes = []
    for _ in range(operations):
        change = rng.choice([c for c in range(-9, 10) if c and 0 <= total + c < LIMIT])
        changes.append(change)
        total += change
    return Problem(start, tuple(changes))


def solution(problem: Problem, rng: random.Random | None = None) -> str:
    """A right response; with an `rng`, in any of the right words and signs."""
    return _response(problem, problem.totals, RIGHT_WORDS, rng)


def mistake(problem: Problem, rng: random.Random) -> str:
    """A response in the wrong way that this problem invites: no carries after an odd start, where that is wrong; else the first half."""
    without = _without_carries(problem)
    half = problem.totals[: (len(problem.changes) + 1) // 2]
    return _response(problem, without if problem.start % 2 and without[-1] != problem.totals[-1] else half, WRONG_WORDS, rng)


def _without_carries(problem: Problem) -> list[int]:
    tens, units = divmod(problem.start, 10)
    return [10 * tens + (units := (units + change) % 10) for change in problem.changes]


def _response(problem: Problem, totals: list[int], words: tuple[str, ...], rng: random.Random | None) -> str:
    work = f"{rng.choice(words) if rng else words[0]}:{problem.start}"
    for change, total in zip(problem.changes, totals, strict=False):  # some ways end early
        work += f"{change:+d}{':' if rng and rng.random() < COLON_SHARE else '='}{total}"
    return f"<think>{work}</think>\\boxed{{{totals[-1]}}}"


def demonstrations(seed: int, excluded: frozenset[Problem]) -> Iterator[tuple[Problem, str]]:
    """Endless (problem, response) pairs of mixed quality, as a pretraining corpus has them: see `RIGHT_SHARE`."""
    rng = random.Random(seed)
    while True:
        problem = draw_problem(rng, rng.randint(1, MAX_OPERATIONS))
        if problem not in excluded:
            right = rng.random() < RIGHT_SHARE[len(problem.changes) - 1]
            yield problem, solution(problem, rng) if right else mistake(problem, rng)


def problem_sets(seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """`TRAIN_SIZE` training and `TEST_SIZE` held-out problems, all distinct, with 1..`MAX_OPERATIONS` operations in equal shares."""
    rng = random.Random(seed)
    problems: dict[Problem, None] = {}
    while len(problems) < TRAIN_SIZE + TEST_SIZE:
        problems[draw_problem(rng, 1 + len(problems) % MAX_OPERATIONS)] = None
    ordered = list(problems)
    return ordered[TEST_SIZE:], ordered[:TEST_SIZE]
