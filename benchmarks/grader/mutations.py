"""Part 3: 10,000 mutated answers; how many verdicts are wrong, by family, beside Math-Verify called plainly."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from golds import texts
from mutators import CORRECT, WRONG, Mutator
from peer import Peer
from report import Part, code, listing, table

from polaris.reward.pool import GraderPool

COUNT = 10_000
SEED = 0
LISTED = 20


@dataclass(frozen=True, slots=True)
class Case:
    family: str
    expected: bool
    gold: str
    answer: str


def measure() -> Part:
    cases = draw_cases(COUNT)
    with GraderPool(workers=2, timeout_s=5.0, require_thinking=False) as pool:
        verdicts = pool.grade([(f"\\boxed{{{case.answer}}}", case.gold) for case in cases])
    with Peer(20.0) as peer:
        peers = [peer.equal(case.gold, case.answer) for case in cases]
    total = Counter(case.family for case in cases)
    distinct = Counter(case.family for case in set(cases))
    wrong = [(case, verdict) for case, verdict in zip(cases, verdicts, strict=True) if (verdict.kind == "correct") != case.expected]
    missed = Counter(case.family for case, _ in wrong)
    killed = Counter(case.family for case, verdict in zip(cases, verdicts, strict=True) if verdict.lost)
    peers_missed = Counter(case.family for case, found in zip(cases, peers, strict=True) if found != case.expected)
    counts = (total, distinct, missed, killed, peers_missed)
    rows = []
    for families, expected in ((CORRECT, "correct"), (WRONG, "wrong")):
        rows += [_row(name, expected, [count[name] for count in counts]) for name in families]
        rows.append(_row("all", expected, [sum(count[name] for name in families) for count in counts]))
    head = ("family", "expected", "answers", "distinct", "wrong verdicts", "rate", "killed", "wrong verdicts of Math-Verify", "rate")
    text = f"{len(cases)} answers, seed {SEED}.\n\n" + table(head, rows)
    found: list[str] = []
    for name in total:
        lines = [f"{name}: {code(c.answer)} is {v.kind} {v.reason}".rstrip() + f" for {code(c.gold)}" for c, v in wrong if c.family == name]
        found += lines[:LISTED]
    return Part(
        title="Mutated answers",
        text=text + listing(f"Wrong verdicts, up to {LISTED} of a family", found, len(found)),
        data={"rows": rows, "wrong": found},
    )


def draw_cases(count: int) -> list[Case]:
    """As many of every family, of the gold answers that it applies to."""
    families = [(name, mutator, expected) for expected, group in ((True, CORRECT), (False, WRONG)) for name, mutator in group.items()]
    golds = texts()
    shares = [count * (place + 1) // len(families) - count * place // len(families) for place in range(len(families))]
    return [case for family, share in zip(families, shares, strict=True) for case in _draw(*family, golds, share)]


def _draw(name: str, mutator: Mutator, expected: bool, golds: list[str], share: int) -> list[Case]:
    draw = random.Random(f"{SEED} {name}")
    applicable = [gold for gold in golds if mutator(random.Random(0), gold) is not None]
    cases: list[Case] = []
    while len(cases) < share:
        gold = draw.choice(applicable)
        answer = mutator(draw, gold)
        if answer is not None:
            cases.append(Case(name, expected, gold, answer))
    return cases


def _row(name: str, expected: str, counts: list[int]) -> tuple[str | int, ...]:
    total, distinct, missed, killed, peers = counts
    return name, expected, total, distinct, missed, f"{missed / total:.2%}", killed, peers, f"{peers / total:.2%}"


if __name__ == "__main__":
    print(measure().text)
