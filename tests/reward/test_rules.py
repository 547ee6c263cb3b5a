"""Verdicts on pairs of answers, one table per family: `pairs/FAMILY.txt` holds lines `answer  ==  gold` and `answer  !=  gold`.

`reported.txt` has them as users of graders reported them, written before the grader was changed and without a look at it.

Each expected verdict follows from the rules of docs/grader.md and was written down before the grader had seen the pair.
"""

import re
from pathlib import Path

import pytest

from polaris.reward.pool import GraderPool

FAMILIES = sorted((Path(__file__).parent / "pairs").glob("*.txt"))
LIMIT_S = 2.0


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=1, timeout_s=LIMIT_S, require_thinking=False) as pool:
        pool.grade([("\\boxed{x + 1}", "1 + x")])
        yield pool


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.stem)
def test_pairs(pool, family):
    disputed = []
    for line in family.read_text(encoding="utf-8").splitlines():
        answer, sign, gold = re.fullmatch(r"(.+?)  (==|!=)  (.+)", line).groups()
        verdict = pool.grade([(f"\\boxed{{{answer}}}", gold)])[0]
        if (verdict.kind == "correct") != (sign == "==") or verdict.lost:
            disputed.append(f"{line}: {verdict.kind} {verdict.reason}")
    assert disputed == []


def test_every_gold_equals_itself(pool):
    golds = [re.split("  [=!]=  ", line)[1] for family in FAMILIES for line in family.read_text(encoding="utf-8").splitlines()]
    assert [gold for gold in golds if pool.grade([(f"\\boxed{{{gold}}}", gold)])[0].kind != "correct"] == []
