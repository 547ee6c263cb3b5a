"""Comparing expressions by algebra, the last step of grading. It may never end, so it runs in a process that can be killed.

latex2sympy2 (the parser of Math-Verify) reads both sides; they are equal if they have the same value, to 25 digits, at a dozen
points, wherever both are real. Unlike a comparison of rounded values, this is exact enough for tiny numbers, and it needs no
simplification, which may never end. Nothing here calls `eval`, `sympify` or `parse_expr` on text.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from typing import TypeVar

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy.core.function import AppliedUndef

from polaris.reward.attempt import attempt
from polaris.reward.nodes import Approximated, Leaf, Node, Relation
from polaris.reward.number import Number, is_cut_or_rounded, read_number, rounds_to

T = TypeVar("T")
DIGITS = 40
TOLERANCE = sympy.Float("1e-25", DIGITS)
_ZERO = sympy.Float("1e-35", DIGITS)
_BITS = 100
_DEEPEST = 700
_POINTS = 12
_MOST_SYMBOLS = 12
_NOT_EXPRESSIONS = ("\\text", "\\ldots", ":", "?", '"', "[", "]", "&", "\\\\", "\\emptyset", "\\pm", "\\mp", ",")
_THOUSANDS = re.compile(r"(?<![\d.,(])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_PRIMES = re.compile(r"([A-Za-z])('+)")
_BARE_LOGARITHM = re.compile(r"\\log(?![A-Za-z_]| ?_)")
# The parser takes symbols for coprime.
_OF_INTEGERS = re.compile(r"\\(?:gcd|lcm)(?! ?\([\d,]+\))")
_ROOT_INDEX = re.compile(r"\\sqrt\[[^\[\]]*\]")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
_CONSTANTS = {sympy.Symbol("i"): sympy.I}
# Between the points they could hide anything, so an answer may have them only if its gold answer has.
_STEPS = (sympy.floor, sympy.ceiling, sympy.Max, sympy.Min, sympy.Mod, sympy.sign, sympy.Heaviside, sympy.Piecewise)
Point = dict[sympy.Symbol, sympy.Rational]
Link = tuple[str, sympy.Expr]


def algebra(gold: Node, answer: Node) -> bool:
    """Whether two leaves or two relations are equal, or the decimal of `answer` is a rounding of the leaf `gold`.

    Text that cannot be read or computed is not equal. Raises `MemoryError` at the limit.
    """
    return bool(_computed(lambda: _equal(gold, answer)))


def _equal(gold: Node, answer: Node) -> bool:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_relation(gold, answer)
    assert isinstance(gold, Leaf)
    if isinstance(answer, Approximated):
        return _is_rounding(gold.text, answer.decimal.text)
    assert isinstance(answer, Leaf)
    return _same_expression(gold.text, answer.text)


def _computed(compute: Callable[[], T]) -> T | None:
    """None where the parser raises, plain `Exception` mostly, or sympy whatever a function meets at a point; `MemoryError` is raised."""
    found = attempt(compute)
    if isinstance(found, MemoryError):
        raise found
    return None if isinstance(found, Exception) else found


def value_key(text: str) -> str | None:
    """The values of a `respell`ed expression at three points, as text: equal expressions share it, but for a tie in the 12th digit. A
    rational number is itself. None for what cannot be read or computed. Raises `MemoryError` at the limit."""
    if (found := _computed(lambda: _values(text))) is None:
        return None
    side, values = found
    if any(value is None for value in values):
        return None
    if not side.free_symbols and (ratio := _ratio(values[0])) is not None:
        return str(ratio)
    return f"{','.join(sorted(map(str, side.free_symbols)))}:{' '.join(str(sympy.N(value, 12)) for value in values)}"


def _values(text: str) -> tuple[sympy.Expr, list[sympy.Expr | None]] | None:
    """An expression and its values at three points."""
    side = expression(text)
    return side if side is None else (side, [_value(side, point) for point in islice(_points(side.free_symbols), 3)])


def _ratio(value: sympy.Expr) -> Fraction | None:
    """The quotient of small integers that a number is, to 25 digits."""
    if not value.is_real:
        return None
    ratio = Fraction(str(value)).limit_denominator(1_000_000)
    return ratio if _close(value, sympy.Rational(ratio.numerator, ratio.denominator)) else None


def _same_expression(gold: str, answer: str) -> bool:
    """A logarithm without a base has base 10 or e, but the same on both sides."""
    readings = [(gold, answer)]
    if _BARE_LOGARITHM.search(gold + answer):
        readings.append((_BARE_LOGARITHM.sub(r"\\ln", gold), _BARE_LOGARITHM.sub(r"\\ln", answer)))
    return any(_same_value(*reading) for reading in readings)


def _same_value(gold: str, answer: str) -> bool:
    sides = expression(gold), expression(answer)
    if sides[0] is None or sides[1] is None or (sides[1].has(*_STEPS) and not sides[0].has(*_STEPS)):
        return False
    return _same_function(*sides) or _rounded(sides[0], read_number(answer)) or _rounded(sides[1], read_number(gold))


@functools.lru_cache(maxsize=4096)
def expression(text: str) -> sympy.Expr | None:
    """The expression of a `respell`ed text, None if it is none; raises whatever the parser does. The letter i is the imaginary unit."""
    text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    text = _PRIMES.sub(lambda found: f"{found[1]}_{{{len(found[2])}prime}}", text)
    if _OF_INTEGERS.search(text) or any(mark in _ROOT_INDEX.sub("", text) for mark in _NOT_EXPRESSIONS if mark != "," or "(" not in text):
        return None
    parsed = latex2sympy(text, convert_degrees=True, conversion_config=_CONVERSION)
    if not isinstance(parsed, sympy.Expr) or len(parsed.free_symbols) > _MOST_SYMBOLS:
        return None
    # An unknown function's value is one more unknown, and so is an unknown's derivative.
    parsed = parsed.replace(_is_unknown, lambda part: sympy.Symbol(str(part).replace(" ", "")))
    exact = {decimal: sympy.Rational(str(decimal)) for decimal in parsed.atoms(sympy.Float)}
    return parsed.xreplace(exact).subs(_CONSTANTS)


def _is_unknown(part: sympy.Basic) -> bool:
    return isinstance(part, AppliedUndef) or (isinstance(part, sympy.Derivative) and part.expr.is_Symbol)


def _same_function(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Equal wherever both are real; where they never are, wherever both have a value."""
    symbols = left.free_symbols | right.free_symbols
    real = complex_ = 0
    differs = False
    for point in _points(symbols):
        values = _value(left, point), _value(right, point)
        if values[0] is None or values[1] is None:
            continue
        both_real = bool(values[0].is_real and values[1].is_real)
        if not _close(*values):
            if both_real:
                return False
            differs = True
        real, complex_ = real + both_real, complex_ + (not both_real)
    needed = 3 if symbols else 1
    enough = real >= needed or (real == 0 and not differs and complex_ >= needed)
    return enough and (bool(symbols) or not _differ_far_behind(left, right))


def _differ_far_behind(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Whether two numbers surely differ, though by less than their first digits show: 1 and `1 - 2^{-2006}`."""
    difference = (left - right).evalf(15, maxn=_DEEPEST)
    certain = all(part._prec > 1 for part in difference.atoms(sympy.Float))
    return bool(difference.is_number and difference.is_finite and certain and difference != 0)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    """Each link of one chain is a constant multiple of the other's, read forwards or backwards; inequalities need a positive one."""
    if len(gold.signs) != len(answer.signs):
        return False
    true, given = _links(gold), _links(answer)
    if true is None or given is None:
        return False
    return any(all(_same_link(*pair) for pair in zip(true, order, strict=True)) for order in (given, given[::-1]))


def _links(relation: Relation) -> list[Link] | None:
    """("=", "!=", "<" or "<=", difference) of neighbouring sides, the difference to be compared with 0."""
    found: list[Link] = []
    sides = [expression(side) for side in relation.sides]
    for sign, left, right in zip(relation.signs, sides, sides[1:], strict=False):
        if left is None or right is None:
            return None
        found.append((sign.replace(">", "<"), right - left if sign.startswith(">") else left - right))
    return found


def _same_link(gold: Link, answer: Link) -> bool:
    if gold[0] != answer[0]:
        return False
    ratios = []
    for point in _points(gold[1].free_symbols | answer[1].free_symbols):
        top, bottom = _value(gold[1], point), _value(answer[1], point)
        if top is not None and bottom is not None and abs(bottom) > _ZERO:
            ratios.append(top / bottom)
    same = len(ratios) >= 3 and abs(ratios[0]) > _ZERO and all(_close(ratio, ratios[0]) for ratio in ratios)
    return same and ("<" not in gold[0] or bool(sympy.re(ratios[0]) > 0))


def _rounded(exact: sympy.Expr, decimal: Number | None) -> bool:
    """Whether a long decimal is the other side's value."""
    if decimal is None or decimal.form != "decimal" or exact.free_symbols:
        return False
    value = _value(exact, {})
    return value is not None and bool(value.is_real) and rounds_to(Fraction(str(value)), decimal)


def _is_rounding(exact: str, decimal: str) -> bool:
    side, number = expression(exact), read_number(decimal)
    value = _value(side, {}) if side is not None and not side.free_symbols else None
    return value is not None and number is not None and bool(value.is_real) and is_cut_or_rounded(Fraction(str(value)), number)


def _points(symbols: set[sympy.Symbol]) -> Iterator[Point]:
    """Fixed random points, the same for both sides: positive ones first, then of both signs; every other one below 1."""
    if not symbols:
        yield {}
        return
    generator, names = random.Random(0), sorted(symbols, key=str)
    for index in range(_POINTS):
        signs = (1,) if index < _POINTS // 2 else (1, -1)
        largest = 907 if index % 2 else 2999
        yield {name: generator.choice(signs) * sympy.Rational(generator.randint(101, largest), 1009) for name in names}


def _value(side: sympy.Expr, point: Point) -> sympy.Expr | None:
    """The number at a point; None if there is none or too few of its digits are certain; a sum that cancels is 0."""
    value = side.evalf(DIGITS, subs=point) if point else side.evalf(DIGITS)
    if not value.is_number or not value.is_finite or value.free_symbols:
        return None
    uncertain = any(part._prec < _BITS for part in value.atoms(sympy.Float))
    return (sympy.Integer(0) if abs(value) < _ZERO else None) if uncertain else value


def _close(left: sympy.Expr, right: sympy.Expr) -> bool:
    size = max(abs(left), abs(right))
    return bool(size < _ZERO and min(abs(left), abs(right)) == 0) or bool(abs(left - right) <= TOLERANCE * size)
