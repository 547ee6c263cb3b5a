"""What runs in the trainer's own process comes back at once, whatever is written: nobody could kill it there."""

import itertools
import signal

import pytest

from polaris.reward.grade import decide
from polaris.reward.screen import MAX_CHARS

PIECES = [
    *(
        "1",
        "a",
        "A",
        "HA",
        " ",
        ",",
        "1,",
        "1.",
        ":",
        "=",
        "<",
        "|",
        "+",
        "/",
        "^",
        "_",
        "{",
        "}",
        "(",
        ")",
        "[",
        "\\{",
        "$",
        "%",
        "'",
        "!",
    ),
    *("\\frac", "\\text{a}", "\\text{", "\\left(", "\\right)", "\\ ", "\\cup", " or ", "\\text{ and }", "\\pm", "\\sqrt{", "&", "\\\\"),
    *(
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "\\cdot",
        "\\circ",
        "10^",
        "x=",
        "x_",
        "a b ",
        "(A)",
        "12:30",
        "\\binom{",
        "\\log_",
        " cm",
        "km/h ",
    ),
]
WORDS = [
    "so ",
    "x is ",
    "for all x ",
    "where ",
    "either ",
    "C. ",
    ";",
    "x_1=",
    "\\approx ",
    "\\begin{cases}",
    "\\end{cases}",
    "n\\in Z,",
    "\\mu ",
    "yes, ",
    "approximately ",
    "...",
    "(A,1) ",
    "1 h ",
]
LIMIT_S = 2.0
"""Of CPU: a hundred times what the slowest takes."""


@pytest.fixture
def in_time():
    """`decide`, whose call fails the test by the given name if it does not come back."""

    def late(number, frame):
        raise TimeoutError

    def call(name, *arguments, **options):
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        try:
            return decide(*arguments, **options)
        except TimeoutError:
            pytest.fail(f"no verdict within {LIMIT_S:g} s of CPU on {name}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    before = signal.signal(signal.SIGPROF, late)
    yield call
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("mode", ["strict", "deepscaler"])
@pytest.mark.parametrize("gold", ["x+1", "\\text{two words}", "1, 2"])
def test_repeated_pieces_up_to_the_length_that_is_read(in_time, mode, gold):
    for pair in itertools.product(PIECES, PIECES):
        text = ("".join(pair) * MAX_CHARS)[: MAX_CHARS - 1] + "1"
        in_time(f"{pair[0] + pair[1]!r} repeated", f"\\boxed{{{text}}}", gold, require_thinking=False, mode=mode)


def test_words_around_an_answer_repeated(in_time):
    gold = "x=1, y=2 \\text{ or } x=2, y=1"
    around = [*itertools.product(WORDS, [*WORDS, *PIECES]), *itertools.product(PIECES, WORDS)]
    for pair in map("".join, around):
        in_time(f"{pair!r} repeated", f"\\boxed{{{(pair * MAX_CHARS)[: MAX_CHARS - 1]}1}}", gold, require_thinking=False)


@pytest.mark.parametrize("end", ["", "\\boxed{5}", "</think> \\boxed{5}"])
@pytest.mark.parametrize(
    "piece", [*PIECES, "\\boxed{", "\\boxed{1}, ", "\\boxed{1} and ", "\\boxed 5 ", "<think>", "</think>", "\\\\boxed"]
)
def test_responses_of_a_million_characters(in_time, piece, end):
    in_time(f"a million characters of {piece!r}", (piece * 10**6)[: 10**6] + end, "5", require_thinking=False)
