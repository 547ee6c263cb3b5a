"""Is an answer equal to a gold answer? Text, numbers and structure decide what they can; expressions are left to algebra.

The rules, where grading suites disagree (docs/grader.md lists them with examples):

- A gold integer or number wants a number that is written out: `17 \\cdot 23` is not 391, `\\sum_{i=1}^{100} i` is not 5050.
- A quotient for a gold quotient must be in lowest terms; decimals and quotients are exact, but for six or more digits of a long decimal.
- Lists and sets want all items and no other, in any order, repetition aside; tuples and intervals want their order and brackets.
- A unit, a percent sign or a name (`x =`) that only one side has is left out; two known units that differ are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from polaris.reward.number import read_number, same_number
from polaris.reward.structure import Leaf, Named, Node, Ordered, Relation, Unordered
from polaris.reward.units import units_differ

Algebra = Callable[[Node, Node], bool | None]
"""(gold leaf or relation, answer's) -> whether they are equal; None: this function cannot tell."""

_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z][A-Za-z' ]+|[A-Z])+")
_CHOICE = re.compile(r"\(?(?:\\text\{)?\(?([A-H])\)?[.:]?(?:\\text\{\})?\}?\)?")
_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+|\\text\{[a-z]+\})\}?")
_UNDONE = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|limsup|frac\{d\})(?![A-Za-z])")
_EVERY = ("()", "[]", "")


def equal(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """True, False, or None where only algebra could tell and `algebra` did not."""
    if gold == answer:
        return True
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _named(gold, answer, algebra)
    if isinstance(gold, Relation):
        return _interval(gold, answer, algebra) if isinstance(answer, Ordered) else _algebraic(gold, answer, algebra)
    if isinstance(gold, Leaf) and isinstance(answer, Leaf):
        return _leaves(gold, answer, algebra)
    if isinstance(gold, Ordered) and isinstance(answer, Ordered):
        return _ordered(gold, answer, algebra)
    if isinstance(gold, Unordered) and isinstance(answer, Unordered) and gold.kind == answer.kind:
        return _unordered(gold, answer, algebra)
    return False


def undecided(gold: Node, answer: Node) -> None:
    """No algebra: every question stays open."""


def _named(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    if isinstance(gold, Relation) and isinstance(answer, Named):
        return _algebraic(gold, Relation(("=",), (answer.name, answer.text)), algebra)
    if isinstance(gold, Named) and isinstance(answer, Relation):
        return _algebraic(Relation(("=",), (gold.name, gold.text)), answer, algebra)
    return equal(*(node.value if isinstance(node, Named) else node for node in (gold, answer)), algebra)


def _leaves(gold: Leaf, answer: Leaf, algebra: Algebra) -> bool | None:
    if units_differ(gold.unit, answer.unit):
        return _percent(gold, answer)
    if gold.text == answer.text:
        return True
    numbers = read_number(gold.text), read_number(answer.text)
    if numbers[0] and numbers[1]:
        return same_number(*numbers) or _percent(gold, answer)
    if numbers[0]:
        # Its value is known, so an answer that is not written out as a number has left the work to the grader.
        return False if numbers[0].form == "integer" else _algebraic(gold, answer, algebra)
    plain = [_plain(leaf.text) for leaf in (gold, answer)]
    if plain[0] is not None:
        return plain[0] == plain[1]
    if (based := _BASE.fullmatch(gold.text)) or _BASE.fullmatch(answer.text):
        return bool(based) and answer.text == based[1]
    return _algebraic(gold, answer, algebra)


def _percent(gold: Leaf, answer: Leaf) -> bool:
    """`25%` is 0.25 as well as 25."""
    if (gold.unit == "%") == (answer.unit == "%"):
        return False
    numbers = read_number(gold.text), read_number(answer.text)
    if numbers[0] is None or numbers[1] is None:
        return False
    scaled = [number.value / 100 if leaf.unit == "%" else number.value for leaf, number in zip((gold, answer), numbers, strict=True)]
    return not gold.unit * bool(answer.unit) and scaled[0] == scaled[1]


def _plain(text: str) -> str | None:
    """Words and multiple-choice letters in one spelling, None for anything else."""
    if choice := _CHOICE.fullmatch(text):
        return choice[1].lower()
    if not _WORDS.fullmatch(text) or (len(text) < 3 and not text.startswith("\\text")):
        return None
    return "".join(re.sub(r"\\text|[{}]", " ", text).lower().split())


def _ordered(gold: Ordered, answer: Ordered, algebra: Algebra) -> bool | None:
    if len(gold.items) != len(answer.items):
        return False
    loose = len(gold.items) > 2 or not ({gold.brackets, answer.brackets} - {"", "()"})
    if gold.brackets != answer.brackets and not (loose and gold.brackets in _EVERY and answer.brackets in _EVERY):
        return False
    return _all(equal(g, a, algebra) for g, a in zip(gold.items, answer.items, strict=True))


def _unordered(gold: Unordered, answer: Unordered, algebra: Algebra) -> bool | None:
    """Every item has its equal on the other side."""
    if len(answer.items) > 2 * len(gold.items) + 2:
        return False
    table = [[equal(g, a, algebra) for a in answer.items] for g in gold.items]
    rows = [_any(row) for row in table]
    columns = [_any(column) for column in zip(*table, strict=True)]
    return _all([*rows, *columns])


def _interval(gold: Relation, answer: Ordered, algebra: Algebra) -> bool | None:
    """A gold inequality of one variable is also the interval of its solutions; not the other way round, which restates the problem."""
    pattern = gold.signs
    if len(pattern) == 2 and set(pattern) <= {"<", "<="}:
        low, high = gold.sides[0], gold.sides[2]
    elif len(pattern) == 2 and set(pattern) <= {">", ">="}:
        low, high, pattern = gold.sides[2], gold.sides[0], tuple(reversed(pattern))
    elif pattern in (("<",), ("<=",)) and len(gold.sides[0]) == 1:
        low, high, pattern = "-\\infty", gold.sides[1], ("<", *pattern)
    elif pattern in ((">",), (">=",)) and len(gold.sides[0]) == 1:
        low, high, pattern = gold.sides[1], "\\infty", (*pattern, "<")
    else:
        return False
    brackets = ("[" if "=" in pattern[0] else "(") + ("]" if "=" in pattern[1] else ")")
    return equal(Ordered(brackets, (Leaf(low), Leaf(high))), answer, algebra)


def _algebraic(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """Leaves or relations by algebra. A sum, product, integral or limit that the gold answer does not have restates the problem."""
    if type(gold) is not type(answer) or (_UNDONE.search(str(answer)) and not _UNDONE.search(str(gold))):
        return False
    return algebra(gold, answer)


def _all(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return False if False in found else None if None in found else True


def _any(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return True if True in found else None if None in found else False
