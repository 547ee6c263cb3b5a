"""PRM800K's clean-up of an answer, case by case."""

import pytest

from polaris.reward.deepscaler import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.0", "12"), ("-3.", "-3"), ("12.50", "12.50"), ("50\\%", "50"), ("\\$7", "7"), ("{5}", "5"), ("X", "x"), ("- 4", "-4"),
        ("1,000", "1000"), ("12,345,678", "12345678"), ("1,00", "1,00"), ("5 million", "5*10^6"), ("2 billion", "2*10^9"),
        ("3 trillion", "3*10^12"), ("30^\\circ", "30"), ("a or b", "a,b"), ("a and b", "a,b"), ("\\text{yes}", "yes"),
        ("\\frac{1}{2}", "1/2"), ("\\frac{x+1}{2}", "(x+1)/2"), ("\\frac{\\frac{1}{2}}{3}", "(1/2)/3"), ("\\sqrt{2}", "sqrt(2)"),
        ("2\\cdot\\pi", "2*pi"), ("\\infty", "inf"),
    ],
)  # fmt: skip
def test_plain(text, expected):
    assert plain(text) == expected
