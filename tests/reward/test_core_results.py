"""Marked intermediate results: equal ones share a key, and what earns nothing is left out."""

import time

import pytest

from polaris.config.process import ProcessConfig
from polaris.config.reward import RewardConfig
from polaris.errors import Refused
from polaris.reward.core_results import marked_results, result_key
from polaris.reward.grade import compare
from polaris.reward.protocol import RewardItem
from polaris.reward.rewards import Rewards, checked_rewards

EQUAL = (
    ("7", "7.0", r"\frac{14}{2}"),
    ("1/2", "0.5", r"\frac{1}{2}", r"\dfrac12"),
    (r"\sqrt{2}", r"2^{1/2}", r"\frac{2}{\sqrt{2}}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("a+b", "b + a"),
    ("(1, 2)", "(1,2)"),
    ("1,000", "1000"),
    (r"\frac12+\frac13", r"\frac{5}{6}"),
    ("1,2", "2,1", r"\{1.0,2\}", "1 \\text{ and } 2"),
    ("x > 1+2", "3 < x"),
    (r"50\%", "0.5"),
)
ACCEPTED = {
    "A": (r"\text{A}", r"\textbf{(A)}"),
    "0.5": (r"50\%", r"\frac12"),
    "1,2": ("2,1", "1.0,2", r"\{1,2\}"),
    r"\{1,2\}": (r"\{2,1\}", "1 \\text{ and } 2", "x=1,2"),
    "(1,2)": ("(1.0,2)", "x=1,y=2"),
    r"\text{Monday}": ("Monday",),
    r"x \le 3": (r"3 \ge x", r"(-\infty,3]"),
    "y=2x+1": ("2x+1=y",),
    "12:30": (r"12:30 PM",),
}
SUMS = r"=(-?\d+)"


@pytest.mark.parametrize("forms", EQUAL)
def test_forms_of_one_result_share_a_key_and_the_grader_finds_them_equal(forms):
    assert len({result_key(form) for form in forms}) == 1, [result_key(form) for form in forms]
    assert {compare(form, forms[-1]).kind for form in forms if "/2" not in form and "+" not in form} <= {"correct"}


def test_different_results_have_different_keys():
    forms = ["7", "-7", "1/2", "0.51", r"\sqrt{2}", "1.414", "x", "y", "x+1", "x^2", "(1,2)", "(2,1)", r"\pi", "3.14159"]
    assert len({result_key(form) for form in forms}) == len(forms)


@pytest.mark.parametrize(
    ("text", "key"),
    [("3+4=7", "7"), ("x = 7", "7"), ("$7$", "7"), ("", None), ("7" * 600, None), (r"\input{x}", None), ("9^{9^{9}}", None)],
)
def test_of_an_equation_the_last_side_counts_and_what_may_not_be_parsed_does_not(text, key):
    assert result_key(text) == key


def found(response, question="", truth="", marker="underline", most=32):
    return marked_results(response, question, truth, marker, most)


def test_a_response_s_marks():
    response = r"\underline{3+4=7} \underline{\frac{1}{2}} <think>\underline{x+\sqrt{2}}</think> \underline{never closed"
    assert found(response).keys == tuple(sorted(("7", "1/2", result_key(r"x+\sqrt{2}"))))
    assert found("<think>47+8=55+6=61</think>\\boxed{61}", marker=SUMS).keys == ("55", "61")


def test_final_answers_numbers_of_the_question_and_repetitions_earn_nothing():
    response = r"\underline{5}\underline{12}\underline{\frac{24}{2}}\underline{60}\underline{60.0}\underline{-3}"
    assert found(response, "A is 5 and B is 1,200.", ("x", "120/2")).keys == ("-3", "12")
    assert found(r"\underline{1200}\underline{1}", "A is 1,200, and B is 0.5.").keys == ("1",)


@pytest.mark.parametrize("truth", ACCEPTED)
def test_no_form_that_the_grader_takes_for_the_answer_is_a_result(truth):
    for form in ACCEPTED[truth]:
        assert compare(form, truth).kind == "correct"
        assert found(rf"\underline{{{form}}}\underline{{77}}", truth=truth).keys == ("77",)


@pytest.mark.parametrize(
    ("question", "numbers"),
    [
        ("f(3,4)", (3, 4)),
        ("half, 1/2, of it", (1, 2, "1/2")),
        ("x_3 = -5", (3, 5, -5)),
        ("7-5", (7, 5)),
        ("12:30", (12, 30)),
        ("5x+12y", (5, 12)),
    ],
)
def test_each_number_of_the_question_is_no_result(question, numbers):
    assert found("".join(rf"\underline{{{number}}}" for number in numbers), question).keys == ()


def test_more_marks_than_may_be_count_for_nothing_at_all():
    marks = "".join(rf"\underline{{{number}}}" for number in range(40))
    assert (found(marks, most=39).keys, found(marks, most=39).number) == ((), 40)
    assert len(found(marks, most=40).keys) == 40
    assert found(r"\underline{1}" * 1000, most=2).keys == ("1",)


def test_a_marker_that_never_ends_costs_the_results_and_not_the_verdict():
    config = RewardConfig(workers=1, timeout_s=1.0, process=ProcessConfig(most=0.5, marker=r"((?:a+)+)$"))
    begun = time.monotonic()
    with Rewards(config, require_thinking=False) as rewards:
        items = [RewardItem(response="a" * 60 + "b \\boxed{4}", ground_truth="4"), RewardItem(response="\\boxed{5} aa", ground_truth="4")]
        slow, quick = rewards.score(items)
    assert (slow.kind, slow.reward, slow.marked, slow.marks) == ("correct", 1.0, (), None)
    assert (quick.kind, quick.marks, quick.process) == ("wrong", 1, 0.0)
    assert time.monotonic() - begun < 60


def test_without_a_process_reward_nothing_is_looked_for():
    with Rewards(RewardConfig(workers=1), require_thinking=False) as rewards:
        (verdict,) = rewards.score([RewardItem(response=r"\underline{3}\boxed{4}", ground_truth="4")])
    assert (verdict.marked, verdict.marks) == ((), 0)


@pytest.mark.parametrize(
    ("process", "named"),
    [
        ({"most": 1.0}, "must lie in"),
        ({"most": 0.5, "marks": 0}, "marks"),
        ({"most": 0.5, "marker": "=(a)(b)"}, "reward.process.marker"),
        ({"most": 0.5, "marker": "boxed"}, "has 0 groups; write underline, or"),
    ],
)
def test_bad_settings_are_refused_by_name(process, named):
    with pytest.raises(Refused, match=named):
        checked_rewards(RewardConfig(process=ProcessConfig(**process)))
