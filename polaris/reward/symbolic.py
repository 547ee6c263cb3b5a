"""Expressions by algebra: the last step of the ladder. It may take for ever, so it belongs into a process that someone may kill.

latex2sympy2 (the parser of Math-Verify) reads both sides; they are equal if they have the same value, to 25 digits, at a dozen
points, wherever both are real. That is exact enough for tiny numbers, where a comparison of rounded values is not, and it
does not wait for a simplification that never comes. Nothing here calls `eval`, `sympify` or `parse_expr` on text.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from fractions import Fraction

import sympy
from latex2sympy2_extended import latex2sympy
from sympy.core.function import AppliedUndef

from polaris.reward.number import Number, read_number, rounds_to
from polaris.reward.structure import Leaf, Node, Relation

DIGITS = 40
TOLERANCE = sympy.Float("1e-25", DIGITS)
_ZERO = sympy.Float("1e-35", DIGITS)
_BITS = 100
_POINTS = 12
_MOST_SYMBOLS = 12
_NOT_EXPRESSIONS = ("\\text", "\\ldots", ":", "?", '"', "[", "]", "&", "\\\\", "\\emptyset")


def algebra(gold: Node, answer: Node) -> bool:
    """Whether two leaves or two relations are equal; what cannot be read is not."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_relation(gold, answer)
    assert isinstance(gold, Leaf)
    assert isinstance(answer, Leaf)
    sides = expression(gold.text), expression(answer.text)
    if sides[0] is None or sides[1] is None:
        return False
    return _same_function(*sides) or _rounded(sides[0], read_number(answer.text)) or _rounded(sides[1], read_number(gold.text))


@functools.lru_cache(maxsize=4096)
def expression(text: str) -> sympy.Expr | None:
    """The expression of a `respell`ed text, None if it is none."""
    if any(mark in text for mark in _NOT_EXPRESSIONS):
        return None
    try:
        parsed = latex2sympy(text)
    except Exception:  # noqa: BLE001 - the parser raises whatever its grammar's actions happen to
        return None
    if not isinstance(parsed, sympy.Expr) or len(parsed.free_symbols) > _MOST_SYMBOLS:
        return None
    # An unknown function's value is one more unknown.
    return parsed.replace(lambda part: isinstance(part, AppliedUndef), lambda part: sympy.Symbol(str(part).replace(" ", "")))


def _same_function(left: sympy.Expr, right: sympy.Expr) -> bool:
    symbols = left.free_symbols | right.free_symbols
    pairs = [(_value(left, point), _value(right, point)) for point in _points(symbols)]
    finite = [(a, b) for a, b in pairs if a is not None and b is not None]
    real = [(a, b) for a, b in finite if a.is_real and b.is_real]
    compared = real or finite
    return len(compared) >= (3 if symbols else 1) and all(_close(a, b) for a, b in compared)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    """Each link of one chain is a constant multiple of the other's, read forwards or backwards; inequalities want a positive one."""
    if len(gold.signs) != len(answer.signs):
        return False
    links = [_links(relation) for relation in (gold, answer)]
    if None in links:
        return False
    return any(all(_same_link(*pair) for pair in zip(links[0], order, strict=True)) for order in (links[1], links[1][::-1]))  # type: ignore[arg-type,index]


def _links(relation: Relation) -> list[tuple[str, sympy.Expr]] | None:
    """("=", "!=", "<" or "<=", difference) of neighbouring sides, the difference to be compared with 0."""
    sides = [expression(side) for side in relation.sides]
    if None in sides:
        return None
    found = []
    for sign, left, right in zip(relation.signs, sides, sides[1:], strict=False):
        difference = right - left if sign.startswith(">") else left - right
        found.append((sign.replace(">", "<"), difference))
    return found


def _same_link(gold: tuple[str, sympy.Expr], answer: tuple[str, sympy.Expr]) -> bool:
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


def _points(symbols: set[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Fixed random points, the same for both sides: positive ones first, then of both signs."""
    if not symbols:
        yield {}
        return
    generator, names = random.Random(0), sorted(symbols, key=str)
    for index in range(_POINTS):
        signs = (1,) if index < _POINTS // 2 else (1, -1)
        yield {name: generator.choice(signs) * sympy.Rational(generator.randint(101, 2999), 1009) for name in names}


def _value(side: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational]) -> sympy.Expr | None:
    """The number at a point, None where there is none or too few of its digits are certain; what cancels to nothing is 0."""
    value = side.evalf(DIGITS, subs=point) if point else side.evalf(DIGITS)
    if not value.is_number or not value.is_finite or value.free_symbols:
        return None
    uncertain = any(part._prec < _BITS for part in value.atoms(sympy.Float))
    return (sympy.Integer(0) if abs(value) < _ZERO else None) if uncertain else value


def _close(left: sympy.Expr, right: sympy.Expr) -> bool:
    size = max(abs(left), abs(right))
    return bool(size < _ZERO and min(abs(left), abs(right)) == 0) or bool(abs(left - right) <= TOLERANCE * size)
