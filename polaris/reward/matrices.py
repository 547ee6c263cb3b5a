"""Matrices and vectors: multiples, transposes, a tuple as a vector."""

from __future__ import annotations

from polaris.reward.nodes import Leaf, Node, Ordered
from polaris.reward.number import read_number


def times(factor: str, node: Ordered) -> Ordered:
    """Every entry multiplied; numbers stay numbers, so that `2` times `3` is written out as `6`."""
    return Ordered(
        node.brackets, tuple(times(factor, entry) if isinstance(entry, Ordered) else _product(factor, entry) for entry in node.items)
    )


def _product(factor: str, entry: Node) -> Node:
    if not isinstance(entry, Leaf):
        return entry
    numbers = read_number({"+": "1", "-": "-1"}.get(factor, factor)), read_number(entry.text)
    if not numbers[0] or not numbers[1]:
        return Leaf(f"{factor}1\\cdot ({entry.text})" if factor in ("+", "-") else f"({factor})\\cdot ({entry.text})")
    value = numbers[0].value * numbers[1].value
    return Leaf(str(value.numerator) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}")


def transpose(node: Node) -> Node | None:
    """Of a matrix, or of the row that a tuple is; None for anything else."""
    if not isinstance(node, Ordered):
        return None
    rows = _rows(node) or [node.items]
    return Ordered("", tuple(Ordered("", column) for column in zip(*rows, strict=False)))


def as_tuple(node: Ordered) -> Ordered:
    """A matrix of one column or one row as a tuple; anything else as it is."""
    rows = _rows(node)
    if not rows or min(len(rows), max(map(len, rows))) > 1:
        return node
    return Ordered("()", tuple(item for row in rows for item in row))


def as_matrix(node: Ordered) -> Ordered:
    """`[[1,2],[3,4]]` as the matrix of its rows; anything else as it is."""
    rows = [row.items for row in node.items if isinstance(row, Ordered) and row.brackets == "[]"]
    if node.brackets != "[]" or len(rows) < len(node.items) or len(set(map(len, rows))) > 1:
        return node
    return Ordered("", tuple(Ordered("", row) for row in rows))


def _rows(node: Ordered) -> list[tuple[Node, ...]]:
    rows = [row.items for row in node.items if isinstance(row, Ordered) and row.brackets == ""] if node.brackets == "" else []
    return rows if len(rows) == len(node.items) else []
