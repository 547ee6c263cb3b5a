"""Nodes of a parsed answer: lists, sets, tuples, relations, names, choices and clauses; leaves are texts of expressions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

SYMBOL = re.compile(r"(?:[A-Za-z]'*(?:_(?:[A-Za-z0-9]|\\[a-z]+ ?|\{[^{}=<>]{1,24}\}))?|\\[a-zA-Z]+ ?)")
"""A name of an unknown."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An expression, with the unit that stood behind it ("" for none)."""

    text: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A tuple, point, vector, interval, ratio or row of a matrix; `brackets` are its two delimiters, such as "[)"."""

    brackets: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Unordered:
    """Several values: a list of all answers, the "solutions" of one unknown, a set in braces, or a union of intervals."""

    items: tuple[Node, ...]
    kind: Literal["values", "solutions", "set", "union"] = "values"

    @property
    def is_list(self) -> bool:
        return self.kind in ("values", "solutions")


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation, inequality or chain of them; `sides` has one more item than `signs`, which are among = < <= > >= != ~."""

    signs: tuple[str, ...]
    sides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """`name = value`, where the name is a symbol, a function of symbols, a tuple of them, or words; `text` is the value's."""

    name: str
    text: str
    value: Node


@dataclass(frozen=True, slots=True)
class Approximated:
    """`\\sqrt{2} \\approx 1.41`: a value and the decimal that is said to be its rounding."""

    exact: Node
    decimal: Leaf


@dataclass(frozen=True, slots=True)
class Choice:
    """`\\textbf{(C) } 7`: the letter of a multiple choice with what it stands for."""

    letter: str
    value: Node


@dataclass(frozen=True, slots=True)
class Quantified:
    """`x + c \\text{ for any constant } c`: `text`, which is read to `value`, holds for all `symbols` of a domain.

    `domain` is a kind ("integer", "real", ...; "" for any), or a condition that the symbols satisfy.
    """

    text: str
    value: Node
    symbols: tuple[str, ...]
    domain: str | Node


Node = Leaf | Ordered | Unordered | Relation | Named | Approximated | Choice | Quantified
