"""Part 1: the collected cases. Agreement with the expected verdict, and the slowest case, beside Math-Verify called plainly."""

from __future__ import annotations

import json
import time
from typing import Any

from golds import CASES, PAIRS
from peer import Peer
from report import Part, code, listing, table

from polaris.reward.pool import GraderPool

LIMIT_S = 2.0
PEER_LIMIT_S = 20.0
_PEER = "Math-Verify 0.9.0, plainly"
Case = dict[str, Any]


def measure() -> Part:
    rows: list[tuple[Any, ...]] = []
    disputed: list[str] = []
    for path in (PAIRS, CASES):
        cases: list[Case] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        ours = _timed(cases, _ours)
        rows += [(path.stem, *_row(name, cases, found)) for name, found in (("polaris, strict", ours), (_PEER, _timed(cases, _peers)))]
        disputed += [
            f"{_pair(case)}: expected {case['expected']}" for case, (found, _) in zip(cases, ours, strict=True) if found != case["expected"]
        ]
    deepscaler = [correct for correct, _ in _timed(cases, lambda chosen: _ours(chosen, "deepscaler"))]
    recorded = [_recorded(case) for case in cases]
    same = sum(found == seen for found, seen in zip(deepscaler, recorded, strict=True))
    differ = [f"{_pair(case)}: ours {found}" for case, found, seen in zip(cases, deepscaler, recorded, strict=True) if found != seen]
    text = table(("file", "grader", "agree", "of", "false positive", "false negative", "hung", "slowest s"), rows)
    text += (
        f"\n\nMode deepscaler gives the verdict recorded from the original POLARIS grader on {same} of {len(cases)} of the {CASES.stem}."
    )
    text += listing("Cases where strict does not agree", disputed) + listing("Cases where deepscaler differs from the original", differ)
    return Part(title="The collected cases", text=text, data={"rows": rows, "deepscaler": same, "disputed": disputed, "differ": differ})


def _timed(cases: list[Case], grader: Any) -> list[tuple[bool | None, float]]:
    found: dict[int, tuple[bool | None, float]] = {}
    for thinking in (False, True):
        chosen = [(place, case) for place, case in enumerate(cases) if ("<think>" in case["prediction"]) == thinking]
        found |= dict(zip((place for place, _ in chosen), grader([case for _, case in chosen]), strict=True))
    return [found[place] for place in range(len(cases))]


def _ours(cases: list[Case], mode: Any = "strict") -> list[tuple[bool, float]]:
    thinking = any("<think>" in case["prediction"] for case in cases)
    found = []
    with GraderPool(workers=1, timeout_s=LIMIT_S, require_thinking=thinking, mode=mode) as pool:
        pool.grade([("\\boxed{x+1}", "1+x")])
        for case in cases:
            start = time.perf_counter()
            verdict = pool.grade([(_boxed(case), case["gold"])])[0]
            found.append((verdict.kind == "correct", time.perf_counter() - start))
    return found


def _peers(cases: list[Case]) -> list[tuple[bool | None, float]]:
    """Thinking is cut off before, as a careful caller does."""
    found: list[tuple[bool | None, float]] = []
    with Peer(PEER_LIMIT_S) as peer:
        for case in cases:
            start = time.perf_counter()
            _, _, answer = _boxed(case).rpartition("</think>")
            found.append((peer.equal(case["gold"], answer), time.perf_counter() - start))
    return found


def _row(name: str, cases: list[Case], verdicts: list[tuple[bool | None, float]]) -> tuple[Any, ...]:
    pairs = [(case["expected"], found) for case, (found, _) in zip(cases, verdicts, strict=True)]
    agree = sum(expected == found for expected, found in pairs)
    positive = sum(not expected and found is True for expected, found in pairs)
    negative = sum(expected and found is False for expected, found in pairs)
    hung = sum(found is None for _, found in pairs)
    return name, agree, len(cases), positive, negative, hung, round(max(seconds for _, seconds in verdicts), 3)


def _boxed(case: Case) -> str:
    return case["prediction"] if "\\boxed" in case["prediction"] else f"\\boxed{{{case['prediction']}}}"


def _recorded(case: Case) -> bool:
    return "polaris=T" in case["note"]


def _pair(case: Case) -> str:
    return f"{code(case['prediction'])} for {code(case['gold'])}"


if __name__ == "__main__":
    print(measure().text)
