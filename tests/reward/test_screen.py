"""What no parser may see, and that limits leave real answers alone."""

import subprocess
import sys
import time

import pytest

from polaris.reward.grade import decide
from polaris.reward.screen import MAX_CHARS, refusal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1+" * (MAX_CHARS // 2) + "1", "longer"),
        ("\u0665", "alphabet"),
        ("4\x002", "alphabet"),
        ("\\input{x}", "macro"),
        ("\\def\\x{\\x\\x}\\x", "macro"),
        ("__import__('os')", "code"),
        ("9**9", "code"),
        ("lambda: 0", "code"),
        ("os.system('x')", "code"),
        ("(" * 13 + "x" + ")" * 13, "nested"),
        ("1" * 201, "digits"),
        ("2^{10001}", "exponent"),
        ("2^{10^5}", "exponent"),
        ("9^{9^{9}}", "exponent"),
        ("((x^{999})^{999})^{999}", "exponent"),
        ("3^{1000!}", "factorial"),
        ("2^{(20)!}", "factorial"),
        ("3001!", "factorial"),
        ("((9!)!)!", "factorial"),
        ("\\binom{10^8}{5}", "binomial"),
        ("\\binom{3001}{5}", "binomial"),
    ],
)
def test_refused(text, reason):
    assert reason in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 200,
        "(" * 12 + "x" + ")" * 12,
        "2^{10000}",
        "x^{10^3}",
        "e^{x^{20}}",
        "3000!",
        "(n-k)!",
        "x^{n!}",
        "\\binom{3000}{1500}",
        "\\lambda + 1",
        "\\sqrt{2+\\sqrt{2+\\sqrt{2+\\sqrt{2}}}}",
        "\\text{if } x > 0",
    ],
)
def test_let_through(text):
    assert refusal(text) is None


PIECES = [
    *(
        "\\frac",
        "\\frac{",
        "{",
        "}",
        "1",
        "(",
        ",",
        "\\text{",
        "\\text{ or }",
        "and",
        " ",
        "-",
        "^",
        "_",
        "\\cup",
        "=",
        "<",
        ".",
        "\\pm",
        "$",
    ),
    *("sqrt(", "C_n^", "(mod ", "\\pmod", "\\sqrt", "!", "%", "1,000", "\\begin{pmatrix}", "&", "\\\\", "|", "'", "\\left", "AB"),
]


@pytest.mark.parametrize("mode", ["strict", "deepscaler"])
def test_the_longest_answers_are_decided_at_once(mode):
    slow = []
    for piece in PIECES:
        answer = (piece * MAX_CHARS)[:MAX_CHARS]
        start = time.thread_time()
        decide(f"\\boxed{{{answer}}}", "\\frac{x}{2}", require_thinking=False, mode=mode)
        slow += [piece] if time.thread_time() - start > 0.2 else []
    assert slow == []


def test_no_algebra_system_is_loaded_where_none_is_needed():
    """Nor by anything that `decide` passes on: the trainer's process has no parser for what a policy wrote."""
    code = (
        "import sys; from polaris.reward.grade import decide;"
        "print([decide(f'\\\\boxed{{{a}}}', g, require_thinking=False) for a, g in"
        " [('5', 5), ('(1, 0.5)', '(1,1/2)'), ('x+1', '1+x'), ('90^\\\\circ', '\\\\frac{\\\\pi}{2}')]]);"
        "sys.exit(bool({'sympy', 'latex2sympy2_extended', 'math_verify', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
