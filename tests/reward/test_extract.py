"""Which text of a response is graded."""

import time

import pytest

from polaris.reward.extract import SEARCHED_CHARS, final_answer
from polaris.reward.grade import decide
from polaris.types import Verdict

MEGABYTE = 1_000_000


def found(response, require_thinking=False, **options):
    answer = final_answer(response, require_thinking, **options)
    return None if isinstance(answer, Verdict) else answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("5", None),
        ("$$\\boxed{5}$$", "5"),
        ("\\[\\boxed{5}.\\] That is all.", "5"),
        ("\\fbox{5}", "5"),
        ("\\boxed\n{5}", "5"),
        ("\\boxed{a}{b}", "a"),
        ("boxed{5} \\Boxed{5}", None),
        ("\\boxed 5", "5"),
        ("$\\boxed5$", "5"),
        ("\\boxed 5 but \\boxed{6} at first, then \\boxed 7", "6"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{\\left\\{1\\right\\}}", "\\left\\{1\\right\\}"),
        ("\\boxed{5\\}", None),
        ("\\boxed{\\}}", "\\}"),
        ("\\boxed{3 + \\boxed{4}}", "3 + \\boxed{4}"),
        ("\\boxed{4} \\boxed{5", "4"),
        ("\\boxed{5 \\boxed{4}", "4"),
        ("\\boxed{4}, no: \\boxed{5}", "5"),
        ("\\boxed{4} \\boxed{5}", "5"),
        ("\\boxed{4}, \\boxed{5}", "4, 5"),
        ("$\\boxed{4}$ and $\\boxed{5}$", "4, 5"),
        ("\\boxed{3}, \\boxed{4}, \\text{or } \\boxed{5}", "3, 4, 5"),
        ("\\boxed{3}; then \\boxed{4}; \\boxed{5}", "4, 5"),
        ("\\boxed{}", None),
        ("\\boxed{ \n}", None),
        ("Answer within \\boxed{}: \\boxed{5}", "5"),
        ("\\boxed{5}, as you asked, within \\boxed{}.", "5"),
        ("x" * MEGABYTE + "\\boxed{5}", "5"),
        ("\\boxed{5}" + "x" * SEARCHED_CHARS, None),
    ],
)
def test_the_box_that_counts(response, answer):
    assert found(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>\\boxed{4}</think>\\boxed{5}", "5"),
        ("thought without a start \\boxed{4}</think>\\boxed{5}", "5"),
        ("<think>\\boxed{4}</think> five", None),
        ("<think>\\boxed{4}", None),
        ("\\boxed{4}", None),
        ("<think>a</think>\\boxed{4}<think>b</think>\\boxed{5}", "5"),
        ("</think>\\boxed{4}<think>no, \\boxed{5}", "4"),
        ("<think>\\boxed{4}</think><think>\\boxed{5}", None),
    ],
)
def test_thinking_does_not_count(response, answer):
    assert found(response, require_thinking=True) == answer


def test_the_recipe_takes_the_last_box_alone():
    assert found("\\boxed{4}, \\boxed{5}", joined=False) == "5"


def repeated(text):
    return (text * (MEGABYTE // len(text) + 1))[:MEGABYTE]


NO_BOX, EMPTY, UNFINISHED = (f"no_answer: {why}" for why in ("no \\boxed{}", "empty \\boxed{}", "unfinished thinking"))
TOO_LONG = "ungradable: longer than the grader reads"
HOSTILE = {
    "unclosed boxes": (repeated("\\boxed{"), NO_BOX),
    "opening braces": (repeated("{"), NO_BOX),
    "closing braces": (repeated("}"), NO_BOX),
    "nested boxes": ("\\boxed{" * (MEGABYTE // 8) + "5" + "}" * (MEGABYTE // 8), NO_BOX),
    "boxes": (repeated("\\boxed{5}"), "5"),
    "joined boxes": (repeated("\\boxed{5} and "), TOO_LONG),
    "nearly joined boxes": (repeated("\\boxed{5}," + "~" * 70), TOO_LONG),
    "empty boxes": (repeated("\\boxed{ }"), EMPTY),
    "bare boxes": (repeated("\\boxed 5 "), "5"),
    "backslashes": (repeated("\\"), NO_BOX),
    "box and spaces": ("\\boxed" + " " * MEGABYTE + "{5}", NO_BOX),
    "spaces in a box": ("\\boxed{" + " " * MEGABYTE + "}", NO_BOX),
    "thoughts": (repeated("<think>"), UNFINISHED),
    "ends of thoughts": (repeated("</think>"), NO_BOX),
    # Their boxes begin before the part that is searched.
    **{
        f"box of {text!r}": ("\\boxed{" + repeated(text) + "}", NO_BOX)
        for text in ("1", "-", "(", "1,", "\\frac{1}{", "\\text{ or }", "$", "½", "\0", "=")
    },
}


@pytest.mark.parametrize("mode", ["strict", "deepscaler"])
@pytest.mark.parametrize(("response", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_anything_is_decided_at_once(response, expected, mode):
    durations = []
    for _ in range(3):
        start = time.thread_time()
        decided = decide(response, "\\frac{x}{2}", require_thinking=False, mode=mode)
        durations.append(time.thread_time() - start)
    if mode == "deepscaler" and expected in ("5", TOO_LONG):  # the last box alone counts, and an integer never reaches the algebra
        expected = "wrong: "
    assert (decided if isinstance(decided, str) else f"{decided.kind}: {decided.reason}") == expected
    assert min(durations) < 0.1
