"""The marked intermediate results of a response, each as a key that equal results share. Runs in a process that can be killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from polaris.config.process import UNDERLINE
from polaris.reward.answer_pattern import pattern
from polaris.reward.extract import boxes
from polaris.reward.grade import accepted
from polaris.reward.nodes import Leaf, Named, Node, Relation
from polaris.reward.number import read_number
from polaris.reward.screen import refusal
from polaris.reward.spelling import respell
from polaris.reward.structure import read
from polaris.reward.symbolic import value_key
from polaris.types import GroundTruth

_UNDERLINED = re.compile(r"\\underline\s*\{|\\.|[{}]", re.DOTALL)
_NUMBERS = re.compile(r"(?<![\w.,])[+-]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
KEY = "reward.process.marker"


@dataclass(frozen=True, slots=True)
class Marked:
    """`keys` of the results that count, sorted; `number` of different results that were marked, whether they count or not."""

    keys: tuple[str, ...]
    number: int


def marked_results(response: str, question: str, ground_truth: GroundTruth, marker: str, most: int) -> Marked:
    """The intermediate results that a response marks. The final answer and the numbers of the question are none, and one that is repeated
    is one; with more than `most` different ones none counts. Text that the grader's screen refuses is no result.

    >>> marked_results(r"\\underline{3+4=7}, so \\underline{\\frac{14}{2}} is 7, \\underline{9}", "3+4+2", "9", "underline", 32).keys
    ('7',)
    """
    found: set[str] = set()
    for text in _marked(response, marker):
        if (key := result_key(text)) is not None:
            found.add(key)
        if len(found) > most:
            return Marked((), len(found))
    given = {key for text in (*_NUMBERS.findall(question), *accepted(ground_truth)) if (key := result_key(text)) is not None}
    return Marked(tuple(sorted(found - given)), len(found))


def result_key(text: str) -> str | None:
    """A key that equal results share: of a number its exact value, of an expression its values at fixed points (as the grader compares
    them), else its spelling. Of an equation the last side counts. None for text that may not be parsed."""
    spelled = respell(text.strip().strip("$"))
    if not spelled or refusal(spelled):
        return None
    node = _last(read(spelled))
    if not isinstance(node, Leaf):
        return repr(node)
    if (number := read_number(node.text)) is not None:
        return str(number.value)
    return value_key(node.text) or node.text.replace(" ", "")


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
        yield from (found[1] or "" for found in pattern(marker, KEY).finditer(response))
