"""The part of a text that is its answer."""

import pytest

from polaris.errors import Refused
from polaris.reward.answer_pattern import extract, pattern


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("####", "Natalia sold 48/2 = 24 clips in May.\n#### 72", "72"),
        ("####", "#### 1\nno: #### 1,234 \n", "1,234"),
        ("####", "#### 5\n####", "5"),
        ("####", "no mark", None),
        ("Answer:", "Answer: 4 apples\n", "4 apples"),
        ("Answer:", "**Answer:** 5", "5"),
        ("Answer:", "**Final answer: 2*3**", "2*3"),
        ("Answer:", "the ANSWER\uff1a7", "7"),
        ("boxed", r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{3} and \boxed{}", "3"),
        ("boxed", r"\boxed{unfinished", None),
        ("whole", "  a\nb  ", "a\nb"),
        ("whole", "   ", None),
        (r"= (-?\d+)", "a = 3, b = -4.", "-4"),
        (r"(?:x=(\d))?end", "x=1end end", "1"),
    ],
)
def test_the_last_answer_that_is_not_blank(name: str, text: str, answer: str | None):
    assert extract(text, pattern(name, "data.answer")) == answer


@pytest.mark.parametrize(("name", "words"), [("(", "no regular expression"), (r"\d+", "0 groups"), (r"(\d)(\d)", "2 groups")])
def test_a_pattern_that_names_no_answer_is_refused(name: str, words: str):
    with pytest.raises(Refused, match=f"data.answer = .*{words}.*####.*one group"):
        pattern(name, "data.answer")


def test_a_long_text_takes_linear_time():
    for name in ("####", "Answer:", "boxed", "whole"):
        extract("#### Answer: \\boxed{" * 5_000, pattern(name, "data.answer"))
