"""Part 3: 10,000 mutated answers; how many verdicts are wrong, by family."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from golds import texts
from mutators import CORRECT, WRONG, Mutator
from report import Part, code, listing, table

from polaris.reward.pool import GraderPool

COUNT = 10_000
SEED = 0
TRIES = 20_000


def measure(count: int = COUNT) -> Part:
    families = [(name, mutator, expected) for expected, group in ((True, CORRECT), (False, WRONG)) for name, mutator in group.items()]
    golds = texts()
    cases = [case for number, family in enumerate(families) for case in _draw(family, golds, count, number, len(families))]
    with GraderPool(workers=2, timeout_s=5.0, require_thinking=False) as pool:
        verdicts = pool.grade([(f"\\boxed{{{answer}}}", gold) for _, _, gold, answer in cases])
    total, wrong, lost = Counter[str](), Counter[str](), Counter[str]()
    found = []
    for (name, expected, gold, answer), verdict in zip(cases, verdicts, strict=True):
        total[name] += 1
        lost[name] += verdict.lost
        if (verdict.kind == "correct") != expected:
            wrong[name] += 1
            found.append(f"{name}: {code(answer)} is {verdict.kind} {verdict.reason} for {code(gold)}")
    rows = [(name, "correct" if expected else "wrong", total[name], wrong[name], lost[name]) for name, _, expected in families]
    positive = sum(wrong[name] for name in WRONG)
    text = table(("family", "expected", "answers", "wrong verdicts", "of them killed"), rows)
    text += f"\n\n{len(cases)} answers, seed {SEED}: {positive} false positives of {sum(total[name] for name in WRONG)}, "
    text += f"{sum(wrong[name] for name in CORRECT)} false negatives of {sum(total[name] for name in CORRECT)}."
    return Part(title="Mutated answers", text=text + listing("Wrong verdicts", found), data={"rows": rows, "wrong": found})


def _draw(family: tuple[str, Mutator, bool], golds: list[str], count: int, number: int, families: int) -> list[tuple[str, bool, str, str]]:
    """This family's share of `count` cases, of as many gold answers as it applies to."""
    name, mutator, expected = family
    share = count * (number + 1) // families - count * number // families
    draw = random.Random(f"{SEED} {name}")
    applicable = [gold for gold in golds if mutator(random.Random(0), gold) is not None]
    cases: list[tuple[str, bool, str, str]] = []
    while len(cases) < share:
        gold = draw.choice(applicable)
        answer = mutator(draw, gold)
        if answer is not None:
            cases.append((name, expected, gold, answer))
    return cases


def main() -> None:
    part: Any = measure()
    print(part.text)


if __name__ == "__main__":
    main()
