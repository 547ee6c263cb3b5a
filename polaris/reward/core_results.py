"""The marked intermediate results of a response, each as a key that equal results share. Runs in a process that can be killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from polaris.config.process import UNDERLINE
from polaris.reward.answer_pattern import marker_pattern
from polaris.reward.extract import boxes
from polaris.reward.grade import compare
from polaris.reward.nodes import Leaf, Named, Node, Ordered, Relation, Unordered
from polaris.reward.number import read_number
from polaris.reward.screen import refusal
from polaris.reward.spelling import respell
from polaris.reward.structure import read
from polaris.reward.symbolic import value_key
from polaris.reward.unit_names import is_percent
from polaris.types import GroundTruth

_UNDERLINED = re.compile(r"\\underline\s*\{|\\.|[{}]", re.DOTALL)
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
_NUMBERS = [re.compile(text) for text in (_NUMBER, f"-{_NUMBER}", r"-?\d+/\d+")]
"""A minus may be one between two numbers, and a fraction is also its two numbers."""
_TURNED = {">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Marked:
    """`keys` of the results that count, sorted; `number` of different results that were marked, whether they count or not."""

    keys: tuple[str, ...]
    number: int


def marked_results(response: str, question: str, ground_truth: GroundTruth, marker: str, most: int) -> Marked:
    """The intermediate results that a response marks. What the grader takes for the final answer and the numbers of the question are none,
    and one that is repeated is one; with more than `most` different ones none counts. Text that the grader's screen refuses is no result.

    >>> marked_results(r"\\underline{3+4=7}, so \\underline{\\frac{14}{2}} is 7, \\underline{9}", "3+4+2", "9", "underline", 32).keys
    ('7',)
    """
    found: dict[str, str] = {}
    for text in _marked(response, marker):
        if (key := result_key(text)) is not None:
            found.setdefault(key, text.strip().strip("$"))
        if len(found) > most:
            return Marked((), len(found))
    given = {result_key(text) for numbers in _NUMBERS for text in numbers.findall(question)}
    keys = [key for key, text in found.items() if key not in given and compare(text, ground_truth).kind != "correct"]
    return Marked(tuple(sorted(keys)), len(found))


def result_key(text: str) -> str | None:
    """A key that equal results share: of a number its exact value, of an expression its values at fixed points (as the grader compares
    them), of several values those of each, else its spelling. Of an equation the last side counts. None for text that may not be parsed."""
    spelled = respell(text.strip().strip("$"))
    return None if not spelled or refusal(spelled) else _key(read(spelled))


def _key(node: Node) -> str:
    node = _last(node)
    if isinstance(node, Leaf):
        if (number := read_number(node.text)) is not None:
            return str(number.value / 100 if is_percent(node.unit) else number.value)
        return value_key(node.text) or node.text.replace(" ", "")
    if isinstance(node, Unordered):
        return f"{{{', '.join(sorted(map(_key, node.items)))}}}"
    if isinstance(node, Ordered):
        return f"{node.brackets}: {', '.join(map(_key, node.items))}"
    if isinstance(node, Relation):
        sides, signs = [_key(read(side)) for side in node.sides], list(node.signs)
        if set(signs) & set(_TURNED):
            sides, signs = sides[::-1], [_TURNED.get(sign, sign) for sign in signs[::-1]]
        return " ".join(part for pair in zip(sides, [*signs, ""], strict=True) for part in pair)
    return repr(node)


def _last(node: Node) -> Node:
    if isinstance(node, Named):
        return _last(node.value)
    if isinstance(node, Relation) and set(node.signs) == {"="}:
        return _last(read(node.sides[-1]))
    return node


def _marked(response: str, marker: str) -> Iterator[str]:
    if marker == UNDERLINE:
        yield from (response[slice(*span)] for span in boxes(response, _UNDERLINED))
    else:
        yield from (found[1] or "" for found in marker_pattern(marker).finditer(response))
