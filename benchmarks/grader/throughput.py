"""Part 5: honest answers per second with one grading process, beside Math-Verify called plainly in this process, taking turns."""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from golds import texts
from mutators import CORRECT, WRONG, is_expression, value
from peer import plainly
from report import Part, table

from polaris.reward.grade import decide
from polaris.reward.pool import GraderPool
from polaris.types import Verdict

ROUNDS = 5
ANSWERS = 200
SEED = 0
Item = tuple[str, str]


def measure() -> Part:
    golds = texts()
    integers = [gold for gold in golds if (number := value(gold)) is not None and number.denominator == 1]
    expressions = [gold for gold in golds if is_expression(gold)]
    rows = [
        _contest("integer golds", integers, ("equal_number", "wrapping"), ("next_number",)),
        _contest("symbolic golds", expressions, ("commuted_sum", "equal_expression", "wrapping"), ("other_expression", "other_power")),
    ]
    text = f"Medians of {ROUNDS} rounds of {ANSWERS} answers, each answer once, every second one wrong, seed {SEED}.\n\n"
    return Part(
        title="Throughput on honest answers",
        text=text + table(list(rows[0]), [list(row.values()) for row in rows]),
        data={"rows": rows},
    )


def _contest(name: str, golds: list[str], right: tuple[str, ...], wrong: tuple[str, ...]) -> dict[str, Any]:
    items, expected = _answers(golds, right, wrong)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    agreed = {"ours": 0, "plain": 0}
    logging.disable(logging.CRITICAL)
    with GraderPool(1, 5.0, require_thinking=False) as pool:
        graders: dict[str, Callable[[list[Item]], list[bool]]] = {
            "ours": lambda share: [verdict.kind == "correct" for verdict in pool.grade(share)],
            "plain": lambda share: [plainly(gold, response) for response, gold in share],
        }
        for grader in graders.values():
            grader([(f"\\boxed{{{i}+x}}", f"x+{i}") for i in range(8)])
        for number in range(ROUNDS):
            share = slice(number * ANSWERS, (number + 1) * ANSWERS)
            for contestant in ("ours", "plain") if number % 2 else ("plain", "ours"):
                start = time.perf_counter()
                found = graders[contestant](items[share])
                rates[contestant].append(ANSWERS / (time.perf_counter() - start))
                agreed[contestant] += sum(one == true for one, true in zip(found, expected[share], strict=True))
    logging.disable(logging.NOTSET)
    ours, plain = (statistics.median(rates[contestant]) for contestant in ("ours", "plain"))
    return {
        "answers": name,
        "need a worker": f"{sum(not isinstance(decide(*item, require_thinking=False), Verdict) for item in items) / len(items):.0%}",
        "ours, per s": round(ours),
        "Math-Verify, per s": round(plain),
        "ours by Math-Verify": round(ours / plain, 2),
        "least of a round": round(min(a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)), 2),
        "ours right": f"{agreed['ours'] / len(items):.1%}",
        "Math-Verify right": f"{agreed['plain'] / len(items):.1%}",
    }


def _answers(golds: list[str], right: tuple[str, ...], wrong: tuple[str, ...]) -> tuple[list[Item], list[bool]]:
    """Distinct responses with their golds, and whether they are right."""
    draw = random.Random(SEED)
    found: dict[Item, bool] = {}
    while len(found) < ROUNDS * ANSWERS:
        gold, true = draw.choice(golds), len(found) % 2 == 0
        mutator = CORRECT[draw.choice(right)] if true else WRONG[draw.choice(wrong)]
        if (answer := mutator(draw, gold)) is not None:
            found.setdefault((f"The answer is $\\boxed{{{answer}}}$.", gold), true)
    return list(found), list(found.values())


if __name__ == "__main__":
    print(measure().text)
