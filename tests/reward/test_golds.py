"""Gold answers as files hold them: JSON lists are alternatives, mathematics stays, and what no response can equal is refused by name."""

import json
from pathlib import Path

import pytest

from polaris.data.problems import read_problems, rejected
from polaris.reward.alternatives import alternatives
from polaris.reward.grade import accepted, grade, ungradable_reason

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "golds"),
    [
        ('["390"]', ["390"]),
        (' [ "390" ]\n', ["390"]),
        ("['390']", ["390"]),
        ('["1/2", "0.5"]', ["1/2", "0.5"]),
        (json.dumps(["\\frac{1}{2}", "9.6\n"]), ["\\frac{1}{2}", "9.6"]),
        (str(["\\frac{1}{2}", "it's"]), ["\\frac{1}{2}", "it's"]),
        ('["\\frac{1}{2}"]', ["\\frac{1}{2}"]),
        ('["\\theta", "\\nu", "x \\neq 2"]', ["\\theta", "\\nu", "x \\neq 2"]),
        ('["\\pi"]', ["\\pi"]),
        ('[["390"]]', ["390"]),
        ('["390", 391, null, ""]', ["390", "391"]),
        ('"390"', ["390"]),
        ("She sold 48/2 = <<48/2=24>>24 clips.\n#### 72", ["72"]),
        ("#### 1,000", ["1,000"]),
        ("[390]", ["390", "[390]"]),
    ],
)
def test_what_cannot_be_mathematics_is_unpacked(text, golds):
    assert accepted(text) == golds
    for gold in golds:
        assert grade(f"\\boxed{{{gold}}}", text, require_thinking=False).kind == "correct"


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "[0,1)",
        "[-2,2]",
        "[[1,2],[3,4]]",
        "(1, 2)",
        "[a, b]",
        "\\{1, 2\\}",
        "[1,234]",
        "[x]",
        "f'(x)",
        "[f'(0), f'(1)]",
        '5"',
        "x",
    ],
)
def test_mathematics_stays_as_it_is(text):
    assert alternatives(text) == (text,)


def test_an_interval_is_not_two_alternatives():
    assert [grade(f"\\boxed{{{answer}}}", "[1, 2]", require_thinking=False).kind for answer in ("1", "2", "[1,2]")] == [
        "wrong",
        "wrong",
        "correct",
    ]


# Each as a file holds it whose writer forgot that a backslash has to be escaped; Python forgets with us.
DAMAGED = {
    "\frac{1}{2}": "a form feed",
    "5\text{ cm}": "a tab",
    "3 \times 4": "a tab",
    "\theta": "a tab",
    "2\tan x": "a tab",
    "x \to 0": "a tab",
    "\beta": "a backspace",
    "\boxed{5}": "a backspace",
    "\\left(1,2\right)": "a carriage return",
    "\rho": "a carriage return",
    "\vec{a}": "a vertical tab",
    "x \neq 2": "a line break",
    "\nabla f": "a line break",
    "\nu_1": "a line break",
    "5\nu": "a line break",
    "\nu = 5": "a line break",
    "\alpha": "a bell",
    "1\x002": "a zero character",
    "\\x0crac{1}{2}": "a control character",
    "rac{1}{2}": "a LaTeX macro without its backslash",
    "frac{1}{2}": "a LaTeX macro without its backslash",
    "5 text{ cm}": "a LaTeX macro without its backslash",
    "\\\\frac{1}{2}": "a LaTeX macro with two backslashes",
    "5\\\\times 3": "a LaTeX macro with two backslashes",
}


@pytest.mark.parametrize(("text", "what"), DAMAGED.items())
def test_damaged_latex_is_named(text, what):
    assert ungradable_reason(text).startswith(what)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        *((word, "a placeholder") for word in ("proof", "Proof.", "notfound", "Not found", "\\text{proof}", "(proof)", "N/A", "nan")),
        *(
            (word, "a placeholder")
            for word in ("see solution", "See the solution above.", "null", "Q.E.D.", "no answer", "Answers may vary")
        ),
        ("![](https://cdn.example/a.png)", "a web address"),
        ("5<sup>2</sup>", "a web address, a picture or HTML"),
        ('{"value": "5"}', "JSON"),
        ('[["1", "2"]]', "JSON"),
        *(
            (word, "items in quotes")
            for word in ("('390',)", "['390' '391']", '["390",]', '["390"', "{'390'}", "array(['390'], dtype=object)")
        ),
        *((word, "braces that do not match") for word in ("\\frac{1}{2", "5}", "\\sqrt{", "}5{", "\\{1, 2}")),
        ("The sequence converges because each term is smaller than the one before it.", "a sentence"),
        ("We prove that the sum is even.", "a sentence"),
        ("The function is even.", "a sentence"),
        ("\\text{The triangle } ABC \\text{ is equilateral}", "a sentence"),
        ("$x=3$. We verify that this is indeed a solution by substitution.", "a sentence"),
        ("yes, because it is continuous on the whole interval", "a sentence"),
        ("The object with the longer period weighs four times as much as the other.", "a sentence"),
    ],
)
def test_texts_that_no_response_equals_are_named(text, what):
    assert ungradable_reason(text).startswith(what)
    assert accepted((text, "7")) == ["7"]
    assert grade(f"\\boxed{{{text}}}", (text, "7"), require_thinking=False).kind != "correct"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "None",
            "undefined",
            "unknown",
            "no solution",
            "yes",
            "empty",
            "impossible",
            "NA",
            "NAN",
            "DNE",
            "none of the above",
            "\\text{odd}",
        ),
        *(
            "The limit does not exist",
            "No such n exists",
            "There are infinitely many solutions.",
            "It cannot be determined from the information given",
        ),
        *(
            "The answer is 3.",
            "The sum of all the angles is always 180 degrees",
            "Yes, the answer is 5",
            "\\text{Softball, Kickball, Picnic}",
            "Alice is taller than Bob",
            "x is a multiple of 6",
            "July 4",
        ),
        "$f(x)=a x+b$, where $b$ is an arbitrary integer, and $a$ is an arbitrary positive integer",
        *("1\\text{ if } n \\text{ is even and } 0 \\text{ otherwise}", "one hundred and twenty-three thousand", "all reals except 2"),
        *("Will, Ann, Bob, Carl, Dan and Eve", "The first Monday of May", "concave up when $x<0$, concave down when $x>0$"),
        *(
            "5\tcm",
            "x=1\ny=2",
            "x=1\nu=2",
            "9.6\n",
            "\n\\begin{pmatrix} 0 \\\\ -5 \\end{pmatrix}\n",
            "\\begin{pmatrix}1\\\\\\frac{1}{2}\\end{pmatrix}",
        ),
        *("\\dfrac{1}{2}", "5\x0c", "\\text{text}", "a<b>c", "\\mathrm{ent}", "x'"),
    ],
)
def test_answers_are_no_errors(text):
    assert ungradable_reason(text) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real prompt sets are not at {SHARED}")
def test_no_gold_of_the_real_sets_is_lost():
    """Two null and two empty ones of MATH aside, every row of the seven sets is graded."""
    bad = {path.stem: [error.reason for one in read_problems(str(path), "") if (error := rejected(one))] for path in SHARED.glob("*/*.*")}
    assert bad.pop("deepscaler_math") == ["no answer", "no answer", "empty", "empty"]
    assert len(bad) == 6
    assert not any(bad.values())
