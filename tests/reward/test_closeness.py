"""Two numbers are equal up to a relative tolerance, whatever their size; next to 0 only 0 is."""

import pytest
import sympy

from polaris.reward.symbolic import TOLERANCE, _close


@pytest.mark.parametrize("size", ["1e-20", "1", "1e20", "-1e20"])
def test_the_tolerance_is_relative(size):
    number = sympy.Rational(size)
    assert _close(number, number)
    for share in (1 - sympy.Rational(TOLERANCE) * 9 / 10, 1 + sympy.Rational(TOLERANCE) * 9 / 10):
        assert _close(number, number * share)
        assert _close(number * share, number)
    for share in (1 - 2 * sympy.Rational(TOLERANCE), 1 + 2 * sympy.Rational(TOLERANCE)):
        assert not _close(number, number * share)
        assert not _close(number * share, number)
    assert not _close(number, -number)


def test_next_to_nothing_is_nothing():
    assert _close(sympy.Integer(0), sympy.Integer(0))
    assert _close(sympy.Integer(0), sympy.Rational("1e-400"))
    assert not _close(sympy.Integer(0), sympy.Rational("1e-20"))
