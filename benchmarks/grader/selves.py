"""Part 2: every gold answer equals itself in a box, and not the gold answer of the next row, unless an independent look says so."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from golds import Gold, golds_by_set
from report import Part, code, listing, table

from polaris.reward.grade import Mode, ungradable_reason
from polaris.reward.pool import GraderPool


def measure() -> Part:
    rows: list[tuple[Any, ...]] = []
    problems: list[str] = []
    for mode in ("strict", "deepscaler"):
        with GraderPool(workers=2, timeout_s=5.0, require_thinking=False, mode=mode) as pool:
            for name, golds in golds_by_set().items():
                row, found = _set(name, golds, pool, mode)
                rows.append(row)
                problems += found
    head = ("set", "mode", "rows", "ungradable golds", "answers", "equal to themselves", "next rows differ", "of them called correct")
    text = table(head, rows) + listing(
        "Verdicts to look at (an empty gold is an error of the set; a unit that only one side has is left out by rule)", problems, 60
    )
    return Part(title="Golds against themselves and their neighbours", text=text, data={"rows": rows, "problems": problems})


def _set(name: str, golds: list[Gold], pool: GraderPool, mode: Mode) -> tuple[tuple[Any, ...], list[str]]:
    bad = [f"{name} row {gold.row}: ungradable, {reason}" for gold in golds if (reason := ungradable_reason(gold.answers))]
    selves = [(gold, answer) for gold in golds for answer in gold.answers if not ungradable_reason(answer)]
    verdicts = pool.grade([(f"\\boxed{{{_text(answer)}}}", gold.answers) for gold, answer in selves])
    unequal = [
        f"{name} row {gold.row}, {mode}: {code(_text(answer))} is {verdict.kind} {verdict.reason}"
        for (gold, answer), verdict in zip(selves, verdicts, strict=True)
        if verdict.kind != "correct"
    ]
    pairs = [(one, other) for one, other in zip(golds, golds[1:] + golds[:1], strict=True) if one.answers and not _same(one, other)]
    verdicts = pool.grade([(f"\\boxed{{{_text(one.answers[0])}}}", other.answers) for one, other in pairs])
    wrong = [
        f"{name} row {other.row}, {mode}: {code(_text(one.answers[0]))} is {verdict.kind} for {code(_text(other.answers[0]))}"
        for (one, other), verdict in zip(pairs, verdicts, strict=True)
        if verdict.kind == "correct" or verdict.lost
    ]
    row = (name, mode, len(golds), len(bad), len(selves), len(selves) - len(unequal), len(pairs), len(wrong))
    return row, (bad if mode == "strict" else []) + unequal + wrong


def _text(answer: str | int | float) -> str:
    return answer if isinstance(answer, str) else f"{answer:g}" if answer < 1e6 else repr(answer)


def _same(one: Gold, other: Gold) -> bool:
    """Whether two rows have a common answer by a look that shares nothing with the grader: equal bare text, or equal fractions."""
    return not {_bare(answer) for answer in one.answers}.isdisjoint(_bare(answer) for answer in other.answers)


def _bare(answer: str | int | float) -> str | Fraction:
    text = re.sub(r"\\left|\\right|\\[,;! ]|[\s$]|\^\{?\\circ\}?|\\?%", "", str(answer)).replace("dfrac", "frac").replace("tfrac", "frac")
    text = re.sub(r"^[a-zA-Z]=", "", text)
    slashed = re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    try:
        return Fraction(re.sub(r"(?<=\d),(?=\d{3}\b)", "", slashed))
    except (ValueError, ZeroDivisionError):
        return text


if __name__ == "__main__":
    print(measure().text)
