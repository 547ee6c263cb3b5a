"""The types of gold answers that `polaris data check` counts."""

from __future__ import annotations

import re

from polaris.reward.grade import accepted
from polaris.reward.number import read_number
from polaris.reward.spelling import respell
from polaris.reward.structure import Leaf, Named, Node, Relation, read
from polaris.types import GroundTruth

_CHOICE = re.compile(r"\(?[A-H]\)?")
_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z][A-Za-z' ]{2,})+")
_NUMBERS = {"integer": "integer", "decimal": "decimal", "quotient": "fraction"}


def answer_type(ground_truth: GroundTruth) -> str:
    """One of: integer, decimal, fraction, tuple/interval/set, equation/inequality, expression, text, multiple choice, alternatives.

    A unit or a name in front (`x =`) does not change the type of the value.
    """
    golds = accepted(ground_truth)
    if len(golds) > 1:
        return "alternatives"
    text = respell(golds[0]) if golds else ""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    return "multiple choice" if _CHOICE.fullmatch(bare) else _type(read(text))


def _type(node: Node) -> str:
    if isinstance(node, Named):
        return _type(node.value)
    if isinstance(node, Relation):
        return "equation/inequality"
    if not isinstance(node, Leaf):
        return "tuple/interval/set"
    if number := read_number(node.text):
        return _NUMBERS[number.form]
    return "text" if _WORDS.fullmatch(node.text) else "expression"
