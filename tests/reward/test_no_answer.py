"""Reasons for which responses have no answer."""

import pytest

from polaris.reward.grade import grade
from polaris.reward.no_answer import CUT_OFF, count, in_words, metrics, reason
from polaris.types import Verdict


@pytest.mark.parametrize(
    ("response", "thinking", "cut", "why"),
    [
        ("\\boxed{4}", False, False, None),
        ("\\boxed{5}", False, True, None),
        ("\\boxed{5}", True, False, "no </think>"),
        ("<think>\\boxed{5}", False, False, "unfinished thinking"),
        ("Answer: 5", False, False, "no \\boxed{}"),
        ("\\boxed{}", False, False, "empty \\boxed{}"),
        ("\\boxed{5}", True, True, CUT_OFF),
        ("Answer: 5", False, True, CUT_OFF),
    ],
)
def test_a_response_that_was_cut_off_might_have_had_an_answer(response, thinking, cut, why):
    assert reason(grade(response, "5", require_thinking=thinking), cut) == why


def test_shares_add_up_and_the_most_frequent_reason_comes_first():
    counts = count(["no \\boxed{}", None, CUT_OFF, "no \\boxed{}", None, None, None, None])
    assert in_words(counts) == "2 no \\boxed{}, 1 cut off at the token limit"
    found = metrics(counts, 8, "reward/no_answer")
    assert found == {
        "reward/no_answer": 3 / 8,
        "reward/no_answer/cut_off": 1 / 8,
        "reward/no_answer/no_end_of_thinking": 0,
        "reward/no_answer/unfinished_thinking": 0,
        "reward/no_answer/no_box": 2 / 8,
        "reward/no_answer/empty_box": 0,
    }
    assert metrics(count([]), 4, "x")["x"] == 0
    assert metrics(count([reason(Verdict("no_answer", "refused"), cut=False)]), 4, "x")["x/other"] == 1 / 4
