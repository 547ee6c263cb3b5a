"""Comparing two expressions with units by text, numbers, words and bases; the rest is left to algebra."""

from __future__ import annotations

import re
from collections.abc import Callable

from polaris.reward.nodes import Leaf, Node, Relation
from polaris.reward.number import read_number, same_number
from polaris.reward.unit_names import is_percent, units_differ
from polaris.reward.units import value_of

Algebra = Callable[[Node, Node], bool | None]
"""(gold leaf or relation, answer's) -> whether they are equal; None: this function cannot tell."""

# A run of letters must begin after a non-letter, so that it can match in only one way.
_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|(?<![A-Za-z' ])[A-Za-z][A-Za-z' ]*)+")
_PRODUCT = re.compile(r"[a-z]{3,4}")
CHOICE = re.compile(r"[(\[]?(?:\\text\{)? ?\(?([A-Z])\)?[.:]?(?:\\text\{\})? ?\}?[)\]]?")
_BASE = re.compile(r"\(?([0-9]+|[0-9A-F]+(?=\)?_\{(?:1\d|[a-z]+)\}))\)?_(?:\{(\d+|[a-z]+)\}|(\d))")
_UNDONE = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|limsup|frac\{d\})(?![A-Za-z])")
_BASES = {
    word: str(base)
    for base, word in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 2)
}
_SAME_WORDS = {
    "nosolutions": "nosolution", "infinitelymanysolutions": "infinitelymany", "dne": "doesnotexist", "limitdoesnotexist": "doesnotexist",
    "norealsolutions": "norealsolution",
}  # fmt: skip


def same_leaf(gold: Leaf, answer: Leaf, algebra: Algebra) -> bool | None:
    gold, answer = _radians(gold, answer), _radians(answer, gold)
    gold, answer = _symbols_as_unit(gold, answer), _symbols_as_unit(answer, gold)
    if units_differ(gold.unit, answer.unit):
        return _percent(gold, answer)
    if gold.text == answer.text:
        return True
    true, given = read_number(gold.text), read_number(answer.text)
    if true and given:
        return same_number(true, given) or _percent(gold, answer)
    if true:
        # The gold value is a number, so an answer that is not written out has left the work to the grader.
        return False if true.form == "integer" else by_algebra(gold, answer, algebra)
    plain = [_plain(leaf.text) for leaf in (gold, answer)]
    if plain[0] is not None and not (_PRODUCT.fullmatch(gold.text) and _PRODUCT.fullmatch(answer.text)):
        return plain[0] == plain[1]
    based = [_in_base(leaf.text) for leaf in (gold, answer)]
    if based[0] or based[1]:
        return based[0] is not None and (based[0] == based[1] if based[1] else answer.text == based[0][0])
    return by_algebra(gold, answer, algebra)


def _in_base(text: str) -> tuple[str, str] | None:
    """The digits and the base of `101_2`, also `101_{two}`."""
    found = _BASE.fullmatch(re.sub(r"\\text\{([0-9A-F]+)\}", r"\1", text))
    base = (found[2] or found[3]) if found else ""
    return (found[1], _BASES.get(base, base)) if found else None


def _radians(angle: Leaf, other: Leaf) -> Leaf:
    """Degrees as radians if the other side contains pi."""
    spoken = "\\pi" in other.text and other.unit in ("", "rad") and "\\pi" not in angle.text
    return Leaf(f"({angle.text})\\cdot \\pi /180") if angle.unit == "deg" and spoken else angle


def _symbols_as_unit(leaf: Leaf, other: Leaf) -> Leaf:
    """`12 m^2` with its symbols read as a unit, if the other side has that unit."""
    value = value_of(leaf.text, other.unit) if other.unit and not leaf.unit else None
    return Leaf(value, other.unit) if value else leaf


def _percent(gold: Leaf, answer: Leaf) -> bool:
    """`25%` is 0.25 as well as 25."""
    if is_percent(gold.unit) == is_percent(answer.unit) or (gold.unit and answer.unit):
        return False
    true, given = read_number(gold.text), read_number(answer.text)
    if true is None or given is None:
        return False
    return true.value / (100 if gold.unit else 1) == given.value / (100 if answer.unit else 1)


def _plain(text: str) -> str | None:
    """Words and multiple-choice letters in one spelling, None for anything else."""
    if choice := CHOICE.fullmatch(text):
        return choice[1]
    if not _WORDS.fullmatch(text) or (len(text) < 3 and not text.startswith("\\text")):
        return None
    words = re.sub(r"(\d)(?:st|nd|rd|th)\b", r"\1", re.sub(r"\\text|[{}.]", " ", text).lower()).split()
    if len(words) > 2 and words[0] == "all" and len(words[-1]) == 1:
        words.pop()
    joined = "".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the", "all") else words)
    return _SAME_WORDS.get(joined, joined)


def by_algebra(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """Leaves or relations by algebra. A sum, product, integral or limit that only the answer has restates the problem."""
    if type(gold) is not type(answer) or (_UNDONE.search(_source(answer)) and not _UNDONE.search(_source(gold))):
        return False
    return algebra(gold, answer)


def _source(node: Node) -> str:
    return node.text if isinstance(node, Leaf) else " ".join(node.sides) if isinstance(node, Relation) else ""
