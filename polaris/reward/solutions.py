"""Lists of answers: solutions of one unknown or of several, bounds on both sides, unions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal

from polaris.reward.nodes import SYMBOL, Leaf, Named, Node, Ordered, Relation, Unordered
from polaris.reward.number import read_number

REALS = Ordered("()", (Leaf("-\\infty"), Leaf("\\infty")))
TURNED = str.maketrans("<>", "><")
_NUMBERED = re.compile(r"(.+)_(\d)")


def several(groups: list[list[Node]], or_: bool) -> Node:
    """A list. Groups of unknowns, as in `x=1, y=2 or x=2, y=1`, are items; `x=1 or y=2` (`or_`) is a union and assigns no value."""
    given = len(groups)
    items = _excluded([one for group in groups for item in group for one in _parts(item, group)])
    systems = all(isinstance(item, Unordered) and _solution([item]) for item in items)
    groups = [[item] for item in items] if systems else groups if len(groups) > 1 else _repeated(items)
    solutions = _solutions(groups)
    if or_ and not solutions and len(groups) == len(items) and _solution(items):
        return Unordered(tuple(Relation(("=",), (item.name, item.text)) for item in items if isinstance(item, Named)), "union")
    return unnamed(solutions or (_between(items) if given == 1 else None) or items)


def _parts(item: Node, group: list[Node]) -> Sequence[Node]:
    """`a=b=2` as both of its parts beside `c=3`."""
    named = isinstance(item, Unordered) and item.is_list and all(isinstance(one, Named) for one in item.items)
    return item.items if isinstance(item, Unordered) and named and any(isinstance(other, Named) for other in group) else (item,)


def _excluded(items: list[Node]) -> list[Node]:
    """`x \\ne 1, 2` as `x \\ne 1, x \\ne 2`."""
    first = items[0]
    if not isinstance(first, Relation) or first.signs != ("!=",) or not SYMBOL.fullmatch(first.sides[0]):
        return items
    return [
        Relation(("!=",), (first.sides[0], item.text)) if isinstance(item, Leaf) and not item.unit and read_number(item.text) else item
        for item in items
    ]


def but(points: Sequence[str], whole: Ordered = REALS) -> Node:
    """An interval, all real numbers if none is given, without some points."""
    start, end = (item.text if isinstance(item, Leaf) else "" for item in whole.items)
    bounds = read_number(start), read_number(end)
    found = {number.value: point for point in points if (number := read_number(point))}
    inside = (value for value in sorted(found) if (not bounds[0] or value > bounds[0].value) and (not bounds[1] or value < bounds[1].value))
    edges = [start, *(found[value] for value in inside), end]
    brackets = ["()"] * (len(edges) - 1)
    brackets[0] = whole.brackets[0] + brackets[0][1]
    brackets[-1] = brackets[-1][0] + whole.brackets[1]
    parts = tuple(Ordered(kind, (Leaf(one), Leaf(other))) for kind, (one, other) in zip(brackets, itertools.pairwise(edges), strict=True))
    return Unordered(parts, "union") if len(parts) > 1 else parts[0]


def _between(items: list[Node]) -> list[Node] | None:
    """`x > 1, x < 3` as `1 < x < 3`; not `x < 1, x > 3`, which is two parts."""
    bounds: dict[str, tuple[str, str]] = {}
    for item in items:
        if isinstance(item, Relation) and len(item.signs) == 1 and SYMBOL.fullmatch(item.sides[0]) and read_number(item.sides[1]):
            bounds[item.signs[0][0]] = (item.signs[0], item.sides[1])
    names = {item.sides[0] for item in items if isinstance(item, Relation)}
    if len(items) != 2 or bounds.keys() != {"<", ">"} or len(names) > 1:
        return None
    (above, high), (below, low) = bounds["<"], bounds[">"]
    ends = read_number(low), read_number(high)
    ordered = ends[0] is not None and ends[1] is not None and ends[0].value < ends[1].value
    return [Relation((below.replace(">", "<"), above), (low, names.pop(), high))] if ordered else None


def intersection(relations: Sequence[Node]) -> Node | None:
    """`x > 1, x \\ne 2` as intervals, from bounds of one symbol and excluded values; None for anything else."""
    links = [link for one in relations for link in _links(one)]
    without = [point for _, sign, point in links if sign == "!="]
    low, high = ([(sign, bound) for _, sign, bound in links if sign[0] == side] for side in "><")
    if not without or not all(map(_links, relations)) or len({name for name, _, _ in links}) > 1 or max(len(low), len(high)) > 1:
        return None
    (above, start), (below, end) = (low or [(">", "-\\infty")])[0], (high or [("<", "\\infty")])[0]
    return but(without, Ordered(("[" if "=" in above else "(") + ("]" if "=" in below else ")"), (Leaf(start), Leaf(end))))


def _links(node: Node) -> list[tuple[str, str, str]]:
    """(symbol, sign, number) of each part of `1 < x \\le 3` or `x \\ne 2`; empty for anything else."""
    if not isinstance(node, Relation):
        return []
    found = []
    for sign, left, right in zip(node.signs, node.sides, node.sides[1:], strict=False):
        if read_number(left):
            left, right, sign = right, left, sign.translate(TURNED)
        if not SYMBOL.fullmatch(left) or not read_number(right) or sign not in ("<", "<=", ">", ">=", "!="):
            return []
        found.append((left, sign, right))
    return found


def _solutions(groups: list[list[Node]]) -> list[Node]:
    """Each group as `(x, y) = (1, 2)`, if all groups give values to the same two or more unknowns; else empty."""
    found = [_solution(group) for group in groups]
    names = {solution.name for solution in found if solution}
    return [solution for solution in found if solution] if len(names) == 1 < len(found) and None not in found else []


def _solution(group: Sequence[Node]) -> Named | None:
    if len(group) == 1 and isinstance(group[0], Unordered) and group[0].is_list:
        group = group[0].items
    named = {item.name: item.value for item in group if isinstance(item, Named) and SYMBOL.fullmatch(item.name)}
    if not 1 < len(named) == len(group):
        return None
    numbered = [_NUMBERED.fullmatch(name) for name in named]
    indices = {found[2] if found else "" for found in numbered}
    names = {name: found[1] if found and len(indices) == 1 else name for name, found in zip(named, numbered, strict=True)}
    order = sorted(named, key=names.__getitem__)
    return Named(f"({','.join(names[name] for name in order)})", "", Ordered("()", tuple(named[name] for name in order)))


def _repeated(items: list[Node]) -> list[list[Node]]:
    """The groups of `x=1, y=2, x=2, y=1` and of `x_1=1, y_1=2, x_2=2, y_2=1`, in whichever order; else one group."""
    names = [item.name if isinstance(item, Named) else "" for item in items]
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if all(numbered) and len({found[1] for found in numbered if found}) > 1:
        indices = dict.fromkeys(found[2] for found in numbered if found)
        return [[item for item, found in zip(items, numbered, strict=True) if found and found[2] == index] for index in indices]
    size = len(set(names))
    return [items[start : start + size] for start in range(0, len(items), size)] if len(items) % size == 0 else [items]


def values(items: list[Node], kind: Literal["values", "solutions", "set"] = "values") -> Node:
    """Values without repetition, lists in the list spread out; a single value is itself."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Unordered) and item.is_list else [item]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Unordered(unique, kind)


def union(items: list[Node]) -> Node:
    if all(isinstance(item, Unordered | Leaf) for item in items):
        return values([part for item in items for part in (item.items if isinstance(item, Unordered) else (item,))], "set")
    return Unordered(tuple(dict.fromkeys(items)), "union")


def unnamed(items: list[Node]) -> Node:
    """`x = 2, x = 3` and `x = 2, 3` without their one name; `x = 2, y = 3` stays."""
    names = {re.sub(r"_\d(?=[,)])", "", item.name) for item in items if isinstance(item, Named)}
    # Not beside what another symbol satisfies: `x = 1, y > 2`.
    if len(names) != 1 or any(isinstance(item, Relation) and names.isdisjoint(item.sides) for item in items):
        return values(items)
    return values([item.value if isinstance(item, Named) else item for item in items], "solutions")
