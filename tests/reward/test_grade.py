"""Verdicts on single answers."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.reward.extract import final_answer
from polaris.reward.grade import compare, decide, gradable, grade
from polaris.reward.pool import GraderPool
from polaris.reward.screen import MAX_CHARS
from polaris.types import Verdict

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("response", "truth", "kind"),
    [
        ("\\boxed{204}", "204", "correct"),
        ("\\boxed{204}", 204.0, "correct"),
        ("\\boxed{4}", 4.0, "correct"),
        ("\\boxed{4.0}", 4, "correct"),
        ("\\boxed{25}", "025", "correct"),
        ("\\boxed{-1}", -1.0, "correct"),
        ("\\boxed{0.5}", 0.5, "correct"),
        ("\\boxed{1,234,567}", "1234567", "correct"),
        ("\\boxed{ \\left( -\\infty, \\dfrac{1}{2} \\right) }", "$(-\\infty,\\frac{1}{2})$", "correct"),
        ("\\boxed{\\boxed{7}}", "7", "correct"),
        ("\\boxed{x^2}", "\\boxed{x^2}", "correct"),
        ("\\boxed{9.6}", ("9.6\n",), "correct"),
        ("\\boxed{7}", ("x", 7.0, "8"), "correct"),
        ("\\boxed{41} then \\boxed{42}", 42, "correct"),
        ("\\boxed{42} then \\boxed{never", 42, "correct"),
        ("\\boxed{41}", ("42", 43), "wrong"),
        ("\\boxed{42} then \\boxed{41}", 42, "wrong"),
        ("\\boxed{-36104}", "36104", "wrong"),
        ("\\boxed{}", "", "no_answer"),
        ("\\boxed{ }", "42", "no_answer"),
        ("the answer is 42", 42, "no_answer"),
        ("\\boxed{" + "1" * 600 + "}", 42, "ungradable"),
    ],
)
def test_settled_without_algebra(response, truth, kind):
    verdict = decide(response, truth, require_thinking=False)
    assert verdict.kind == kind
    assert verdict.reward == (kind == "correct")
    assert len(verdict.answer or "") <= MAX_CHARS


@pytest.mark.parametrize(
    ("response", "truth", "kind"),
    [
        ("\\boxed{\\frac{63}{400}}", "63/400", "correct"),
        ("\\boxed{\\frac{1}{2}}", 0.5, "correct"),
        ("\\boxed{1 + x}", ("y", "x + 1"), "correct"),
        ("\\boxed{x+2}", "x+1", "wrong"),
        ("\\boxed{5 \\text{ or } 7}", "5", "wrong"),
        ("\\boxed{__import__('os').abort()}", "5", "ungradable"),
    ],
)
def test_settled_by_algebra(response, truth, kind):
    assert grade(response, truth, require_thinking=False).kind == kind


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ("<think> \\boxed{41} </think> \\boxed{42}", "correct"),
        ("<think> a </think> \\boxed{41} </think> \\boxed{42}", "correct"),
        ("<think> \\boxed{42} </think> done", "no_answer"),
        ("<think> \\boxed{42}", "no_answer"),
        ("\\boxed{42}", "no_answer"),
    ],
)
def test_only_text_after_the_last_end_of_thinking_counts(response, kind):
    assert grade(response, "42", require_thinking=True).kind == kind


def test_without_required_thinking_a_closed_thought_still_does_not_count():
    assert decide("\\boxed{42}", "42", require_thinking=False).kind == "correct"
    assert decide("<think> \\boxed{42} </think>", "42", require_thinking=False).kind == "no_answer"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{\\frac{a}{b}}", "\\frac{a}{b}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{ x \\right.}", "\\left\\{ x \\right."),
        ("\\boxed {3}", "3"),
        ("{ \\boxed{3}", "3"),
        ("} \\boxed{3} }", "3"),
        ("\\boxed{a \\boxed{3}", "3"),
        ("\\\\boxed{3}", None),
        ("\\boxed{3", None),
    ],
)
def test_the_last_box_balances_braces(text, content):
    found = final_answer(text, require_thinking=False)
    assert (None if isinstance(found, Verdict) else found) == content


@pytest.mark.parametrize(
    ("truth", "expected"),
    [("1", True), (0, True), (float("nan"), False), ("", False), (" $$ ", False), ((), False), (("", "x"), True), ("1" * 600, False)],
)
def test_gradable(truth, expected):
    assert gradable(truth) is expected


@given(st.text(alphabet="\\{}boxed$ ,.0123456789+-()ab\n\u0000\u00e9", max_size=80))
def test_strings_never_raise_and_equal_text_is_correct(text):
    decide(text, text, require_thinking=False)
    if gradable(text) and final_answer(f"\\boxed{{{text}}}", require_thinking=False) == text:
        assert decide(f"\\boxed{{{text}}}", text, require_thinking=False).kind == "correct"


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_integers_compare_as_integers(given_number, truth):
    verdict = decide(f"\\boxed{{{given_number:,}}}", str(truth), require_thinking=False)
    assert (verdict.kind == "correct") == (given_number == truth)


def test_compare_leaves_signals_alone():
    import threading

    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(compare("x+1", "1+x")))
    thread.start()
    thread.join()
    assert verdicts[0].kind == "correct"


@pytest.mark.parametrize("name", ["grader_cases.jsonl", "grader_pairs_2.jsonl"])
def test_agreement_on_the_collected_cases(name):
    if not (SHARED / name).is_file():
        pytest.skip(f"grader cases are not at {SHARED / name}")
    cases = [json.loads(line) for line in (SHARED / name).read_text(encoding="utf-8").splitlines()]
    disputed = []
    for thinking in (False, True):
        chosen = [case for case in cases if ("<think>" in case["prediction"]) == thinking]
        boxed = [p if "\\boxed" in (p := case["prediction"]) else f"\\boxed{{{p}}}" for case in chosen]
        with GraderPool(workers=2, timeout_s=2.0, require_thinking=thinking) as pool:
            verdicts = pool.grade([(answer, case["gold"]) for answer, case in zip(boxed, chosen, strict=True)])
        for case, verdict in zip(chosen, verdicts, strict=True):
            if (verdict.kind == "correct") != case["expected"]:
                disputed.append(f"{verdict.kind}: {case['prediction']!r} for {case['gold']!r}")
    assert disputed == []
