"""Residue classes: `x \\equiv 5 \\pmod{12}`, by any member, equals `12k + 5` for all integers k."""

from __future__ import annotations

import re

from polaris.reward.nodes import Leaf, Named, Node, Quantified

_RESIDUE = re.compile(r"([+-]?\d{1,30})\\pmod\{([1-9]\d{0,30})\}")
_FAMILY = re.compile(r"-?([1-9]\d{0,30})?([a-z])(?:([+-]\d{1,30}))?|([+-]?\d{1,30})([+-])([1-9]\d{0,30})?([a-z])")
_UNIT = "mod "


def residue(text: str, *, any_member: bool) -> Leaf | None:
    """`5 \\pmod{12}` as 5 with the unit "mod 12"; any member of the class, or only what a division leaves."""
    found = _RESIDUE.fullmatch(text)
    if not found:
        return None
    member, modulus = int(found[1]), int(found[2])
    return Leaf(str(member % modulus), f"{_UNIT}{modulus}") if any_member or 0 <= member < modulus else None


def same_class(one: Node, other: Node) -> bool | None:
    """Whether two classes are equal; if both sides name a symbol, both must be classes. None if it cannot be told.

    A value without a name may be the remainder; `n = 3` is one member of `n \\equiv 3 \\pmod{7}`.
    """
    formulas = (side.value if isinstance(side, Quantified) else side for side in (one, other))
    names = {formula.name for formula in formulas if isinstance(formula, Named)}
    classes = _class(one), _class(other)
    if isinstance(one, Named) and isinstance(other, Named) and any(classes) and not all(classes):
        return False
    return classes[0] == classes[1] if classes[0] and classes[1] and len(names) < 2 else None


def _class(node: Node) -> tuple[int, int] | None:
    """(residue, modulus) of a class of integers."""
    if isinstance(node, Named):
        return _class(node.value)
    if isinstance(node, Leaf):
        return (int(node.text), int(node.unit.removeprefix(_UNIT))) if node.unit.startswith(_UNIT) else None
    if not isinstance(node, Quantified) or node.domain != "integer" or len(node.symbols) != 1:
        return None
    value = node.value.value if isinstance(node.value, Named) else node.value
    found = _FAMILY.fullmatch(value.text) if isinstance(value, Leaf) and not value.unit else None
    if not found or (found[2] or found[7]) != node.symbols[0]:
        return None
    modulus = int(found[1] or found[6] or 1)
    return int(found[3] or found[4] or 0) % modulus, modulus
