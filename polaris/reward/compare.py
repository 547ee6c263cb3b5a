"""Comparing an answer with a gold answer by text, numbers and structure; expressions are left to algebra.

The rules, where grading suites disagree (docs/grader.md lists them with examples):

- A gold integer needs a number that is written out: `17 \\cdot 23` is not 391, `\\sum_{i=1}^{100} i` is not 5050.
- A quotient for a gold quotient must be in lowest terms; decimals and quotients are exact, but for six or more digits of a long decimal.
- Lists and sets need the same items in any order, repetition aside; tuples and intervals also need the same order and brackets.
- A unit, percent sign or name (`x =`) on only one side is ignored; two different known units or symbols are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from polaris.reward.leaves import CHOICE, Algebra, by_algebra, same_leaf
from polaris.reward.matrices import as_matrix, as_tuple
from polaris.reward.nodes import SYMBOL, Approximated, Choice, Leaf, Named, Node, Ordered, Quantified, Relation, Unordered
from polaris.reward.number import is_cut_or_rounded, read_number
from polaris.reward.phrases import renamed
from polaris.reward.residues import same_class
from polaris.reward.solutions import but, intersection, values
from polaris.reward.structure import numbers_agree, read
from polaris.reward.unit_names import is_percent, units_differ

_LETTER = r"[A-Za-z](?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?"
_QUANTITY = re.compile(
    rf"{_LETTER}(?:(?:[+\-/]|\\cdot )?{_LETTER})+|\\frac\{{{_LETTER}\}}\{{{_LETTER}\}}|\|{_LETTER}+\|"
    rf"|\\(?:sin|cos|tan) ?(?:{_LETTER}|\\[a-z]+ ?)"
)
_UNKNOWN = re.compile(r"(?<![A-Za-z\\])[A-Za-z]")
_UNKNOWN_VALUE = re.compile(rf"{SYMBOL.pattern}(?:\([A-Za-z]\))?")
_ALONE = re.compile(r"(?<![A-Za-z\\])[a-z](?![A-Za-z])")
_CONSTANTS, _INTEGERS = frozenset("abcdkmpqrsABCDKMPQRS"), frozenset("jklmnrst")
_FUNCTION_VALUE = re.compile(r"(?:\\text)?\\?\{?[A-Za-z]+'*\}?[(\[]")
_STYLE, _PROBABILITY = re.compile(r"\\text|\\(?=top)"), re.compile(r"^\\?Pr?\(")
_DRESS = str.maketrans({"[": "(", "]": ")", "{": None, "}": None, " ": None})
_POWER = re.compile(r"[A-Z]\^.+")
_INVERSE = re.compile(r"\\arc(?:sin|cos|tan|cot)|\\(?:sin|cos|tan|cot) ?\^\{-1\}")
_LETTERS = re.compile(r"(?:\\text\{)?([A-H]{2,6})\}?")
_NUMBERED = re.compile(r"([xyzt]|\\lambda ?)_(?:\d|\{\d(?:,\d)*\})")
_COUNTED = re.compile(r"(?<![A-Za-z\\])[klmn](?![A-Za-z])|(?<=[\da-z }])[klmn](?=\\)")
_EVERY = ("()", "[]", "")
_REPLY = re.compile(r"(?:\\text\{ ?)?(yes|no|true|false)\.? ?\}?", re.IGNORECASE)


def equal(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """True, False, or None where only algebra could tell and `algebra` did not."""
    if gold == answer:
        return True
    if (same := same_class(gold, answer)) is not None:
        return same
    if isinstance(gold, Quantified) or isinstance(answer, Quantified):
        return _quantified(gold, answer, algebra)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choice(gold, answer, algebra)
    if isinstance(gold, Approximated) or isinstance(answer, Approximated):
        return _approximated(gold, answer, algebra)
    gold, answer = _numbered(gold, answer), _numbered(answer, gold)
    if (found := _assigned(gold, answer)) is not None:
        return _all(equal(g, a, algebra) for g, a in found)
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _named(gold, answer, algebra)
    if isinstance(gold, Relation):
        return _interval(gold, answer, algebra) if isinstance(answer, Ordered | Unordered) else by_algebra(gold, answer, algebra)
    if isinstance(gold, Leaf) and isinstance(answer, Leaf):
        return same_leaf(gold, answer, algebra)
    if isinstance(gold, Leaf) and isinstance(answer, Relation):
        return _stated(gold, answer, algebra)
    if isinstance(gold, Unordered) and (isinstance(answer, Ordered) or (isinstance(answer, Unordered) and answer.kind == "union")):
        gold = intersection(gold.items) or gold
    if isinstance(gold, Ordered) and isinstance(answer, Ordered):
        return _ordered(gold, answer, algebra)
    if isinstance(gold, Unordered) and isinstance(answer, Unordered) and _same_kind(gold, answer):
        return _unordered(gold, answer, algebra)
    return _as_list(gold, answer, algebra)


def undecided(gold: Node, answer: Node) -> None:
    """No algebra: every question stays open."""


def _quantified(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """Compare formulas on the same domain, whatever the names of their symbols; a kind that only one side names is ignored."""
    if isinstance(gold, Unordered) or isinstance(answer, Unordered):
        gold, answer = (
            Unordered((side.value, side.domain)) if isinstance(side, Quantified) and not isinstance(side.domain, str) else side
            for side in (gold, answer)
        )
        if not isinstance(gold, Quantified) and not isinstance(answer, Quantified):
            return equal(gold, answer, algebra)
    if isinstance(gold, Quantified) and isinstance(answer, Quantified):
        text = renamed(answer.text, answer.symbols, gold.symbols) if len(answer.symbols) == len(gold.symbols) else None
        same = _same_domain(gold, answer, algebra)
        return False if text is None or same is False else _all([same, equal(gold.value, read(text), algebra)])
    if isinstance(gold, Quantified):
        return _optional(gold) and equal(gold.value, _with_symbols_of(gold, answer), algebra)
    assert isinstance(answer, Quantified)
    return _optional(answer) and equal(gold, answer.value, algebra)


def _with_symbols_of(gold: Quantified, answer: Node) -> Node:
    """An answer without a clause may use another letter: `\\pi + 2 n \\pi` for all integers k."""
    text = answer.text if isinstance(answer, Leaf | Named) else ""
    # The answer's own argument, as in `f(n) = n`, is no constant, nor are x, e and i.
    known = set(_ALONE.findall(gold.text)) - set(gold.symbols) | set(_ALONE.findall(answer.name if isinstance(answer, Named) else ""))
    found = _COUNTED.findall(text) if gold.domain == "integer" else _ALONE.findall(text)
    letters = tuple(letter for letter in dict.fromkeys(found) if letter not in known)
    if not (_INTEGERS if gold.domain in ("integer", "natural", "counting") else _CONSTANTS).issuperset(letters):
        return answer
    other = renamed(text, letters, gold.symbols) if len(letters) == len(gold.symbols) else None
    return answer if other is None else read(other)


def _optional(node: Quantified) -> bool:
    """Whether the clause may be missing: a kind may, but not a condition, nor integers that satisfy an inequality."""
    return isinstance(node.domain, str) and not (isinstance(node.value, Relation) and node.domain in ("integer", "natural", "counting"))


def _same_domain(gold: Quantified, answer: Quantified, algebra: Algebra) -> bool | None:
    if isinstance(gold.domain, str) and isinstance(answer.domain, str):
        return gold.domain == answer.domain or "" in (gold.domain, answer.domain) or {gold.domain, answer.domain} == {"natural", "counting"}
    if isinstance(gold.domain, str) or isinstance(answer.domain, str):
        return False
    # A condition has been read with the names of its own side.
    return equal(gold.domain, answer.domain, algebra) if gold.symbols == answer.symbols else False


def _choice(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """Compare letters if both sides have one, values if both have one; a bare letter is a letter."""
    letters, values = zip(*(_letter_and_value(side) for side in (gold, answer)), strict=True)
    if any(letter in ("no", "false") for letter in letters) and not all(letters):
        return False
    found: list[bool | None] = [letters[0] == letters[1]] if all(letters) else []
    found += [equal(values[0], values[1], algebra)] if values[0] and values[1] else []
    return _all(found) if found else False


def _letter_and_value(node: Node) -> tuple[str, Node | None]:
    if isinstance(node, Choice):
        return node.letter, node.value
    if isinstance(node, Leaf) and (reply := _REPLY.fullmatch(node.text)):
        return reply[1].lower(), None
    letter = CHOICE.fullmatch(node.text) if isinstance(node, Leaf) else None
    return (letter[1], None) if letter else ("", node)


def _approximated(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """Compare exact values, if the decimal is a rounding of the answer's; or one side's decimal if the other has no exact value."""
    if isinstance(gold, Approximated) and isinstance(answer, Approximated):
        return _all([equal(gold.exact, answer.exact, algebra), _is_rounding(answer, algebra)])
    if isinstance(gold, Approximated):
        return _any([equal(gold.exact, answer, algebra), _same_decimal(answer, gold.decimal)])
    assert isinstance(answer, Approximated)
    stated = _any([equal(gold, answer.exact, algebra), _same_decimal(gold, answer.decimal)])
    return False if stated is False else _all([stated, _is_rounding(answer, algebra)])


def _same_decimal(node: Node, decimal: Leaf) -> bool:
    given = node.value if isinstance(node, Named) else node
    numbers = [read_number(leaf.text) if isinstance(leaf, Leaf) else None for leaf in (given, decimal)]
    return all(number and number.form == "decimal" for number in numbers) and equal(given, decimal, undecided) is True


def _is_rounding(answer: Approximated, algebra: Algebra) -> bool | None:
    exact, decimal = answer.exact, answer.decimal
    if not isinstance(exact, Leaf) or (not any(map(is_percent, (exact.unit, decimal.unit))) and units_differ(exact.unit, decimal.unit)):
        return False
    exact, decimal = (Leaf(f"{leaf.text}\\cdot 10^{{-2}}") if is_percent(leaf.unit) else leaf for leaf in (exact, decimal))
    if decimal.unit == "deg" and not exact.unit and _INVERSE.search(exact.text):
        exact = Leaf(f"({exact.text})\\cdot 180/\\pi ")
    true, given = read_number(exact.text), read_number(decimal.text)
    if given is None:
        return False
    return is_cut_or_rounded(true.value, given) if true else algebra(exact, Approximated(exact, decimal))


def _numbered(node: Node, other: Node) -> Node:
    """`x_1 = 1, x_2 = 2` as solutions of one unknown, in any order, except beside a tuple."""
    if not isinstance(node, Unordered) or isinstance(other, Ordered) or not all(isinstance(item, Named) for item in node.items):
        return node
    names = [item.name for item in node.items if isinstance(item, Named)]
    letters = {found[1] if (found := _NUMBERED.fullmatch(name)) else "" for name in names}
    if len(letters) != 1 or "" in letters or len(set(names)) < len(names):
        return node
    return values([item.value for item in node.items if isinstance(item, Named)], "solutions")


def _assigned(gold: Node, answer: Node) -> list[tuple[Node, Node]] | None:
    """Pairs to compare if a side gives values to several unknowns; None if neither does.

    `x = 1, y = 2` equals itself in any order, `(x, y) = (1, 2)`, and `(1, 2)` in the order of the alphabet.
    """
    sides = [_assignments(side) for side in (gold, answer)]
    same_names = bool(sides[0] and sides[1] and sides[0].keys() == sides[1].keys())
    if not same_names and not any(isinstance(side, Unordered) and found for side, found in zip((gold, answer), sides, strict=True)):
        return None
    if sides[0] and sides[1]:
        return [(sides[0][n], sides[1][n]) for n in sides[0]] if sides[0].keys() == sides[1].keys() else [(Leaf("0"), Leaf("1"))]
    named, other = (sides[0], answer) if sides[0] else (sides[1], gold)
    assert named
    if not isinstance(other, Ordered):
        # Named values may answer bare ones; bare values for named ones need the right order.
        # Those of one unknown are not those of two.
        if sides[0] is None:
            return [(Leaf("0"), Leaf("1"))] if isinstance(gold, Unordered) and gold.kind == "solutions" else None
        if isinstance(other, Unordered) and other.kind == "values" and len(other.items) == len(named):
            return list(zip(named.values(), other.items, strict=True))
        return [(Leaf("0"), Leaf("1"))]
    values = Ordered("()", tuple(named[name] for name in sorted(named)))
    return [(values, other) if sides[0] else (other, values)]


def _assignments(node: Node) -> dict[str, Node] | None:
    """Symbol -> value of `x = 1, y = 2` or `(x, y) = (1, 2)`; None for anything else."""
    if isinstance(node, Named) and isinstance(node.value, Ordered):
        names = node.name.strip("(){}\\").split(",")
        return dict(zip(names, node.value.items, strict=True)) if 1 < len(names) == len(node.value.items) else None
    if not isinstance(node, Unordered) or len(node.items) < 2 or not all(isinstance(item, Named) for item in node.items):
        return None
    found = {item.name: item.value for item in node.items if isinstance(item, Named)}
    return found if len(found) == len(node.items) else None


def _named(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    if isinstance(gold, Named) and isinstance(answer, Named):
        symbols = SYMBOL.fullmatch(gold.name) and SYMBOL.fullmatch(answer.name)
        if symbols and gold.name != answer.name and not _same_quantity(gold.name, answer.name):
            return by_algebra(_equation(gold), _equation(answer), algebra)
        names = [_PROBABILITY.sub("P(", _STYLE.sub("", node.name).translate(_DRESS)) for node in (gold, answer)]
        if names[0] != names[1] and _FUNCTION_VALUE.match(gold.name) and _FUNCTION_VALUE.match(answer.name):
            return False
        names = [name.replace("^top", "^T") for name in names]
        if names[0] != names[1] and any(map(_POWER.fullmatch, names)):  # `M^{-1}` is another matrix than `M`
            return False
    elif isinstance(gold, Relation) or isinstance(answer, Relation):
        if any(isinstance(node, Named) and isinstance(node.value, Relation) for node in (gold, answer)):
            gold, answer = (node.value if isinstance(node, Named) else node for node in (gold, answer))
            return equal(gold, answer, algebra)
        true, given = (_equation(node) if isinstance(node, Named) else node for node in (gold, answer))
        return by_algebra(true, given, algebra)
    elif any(isinstance(node, Unordered) and all(isinstance(item, Relation) for item in node.items) for node in (gold, answer)):
        gold, answer = (_equations(node) if isinstance(node, Named) else node for node in (gold, answer))
        return equal(gold, answer, algebra)
    gold, answer = (node.value if isinstance(node, Named) else node for node in (gold, answer))
    return equal(gold, answer, algebra)


def _same_quantity(one: str, other: str) -> bool:
    """Whether names mean the same: `S` and `S_{ABC}` do, `x` and `x_1` do not, as a long index names the quantity's object."""
    short, long = sorted((one, other), key=len)
    return bool(re.fullmatch(rf"{re.escape(short)}_\{{(?:\\[a-z]+ ?)?[A-Za-z]{{2,}}\}}", long))


def _equations(node: Named) -> Node:
    """`y = \\pm x` as the equations of both lines."""
    if not isinstance(node.value, Unordered) or not all(isinstance(item, Leaf) for item in node.value.items):
        return node.value
    return Unordered(tuple(Relation(("=",), (node.name, item.text)) for item in node.value.items if isinstance(item, Leaf)))


def _stated(gold: Leaf, answer: Relation, algebra: Algebra) -> bool | None:
    """`a + b = 7` states the value 7; so does `2 + 5 = 7`, if every side is right; `2x = 7` and `0 < 7` state none."""
    if set(answer.signs) != {"="} or not numbers_agree(answer.sides):
        return False
    stated = equal(gold, read(answer.sides[-1]), algebra)
    if _QUANTITY.fullmatch(answer.sides[0]):
        return stated if set(_UNKNOWN.findall(answer.sides[0])).isdisjoint(_UNKNOWN.findall(answer.sides[-1])) else False
    # An identity such as `x^2-1=(x-1)(x+1)` holds for every value; an equation that ends in a number may hold for one.
    if any(_UNKNOWN.search(side) for side in answer.sides) and not _UNKNOWN.search(answer.sides[-1]):
        return False
    last = answer.sides[-1]
    return _all([stated, *(_any([algebra(Leaf(last), Leaf(side)), equal(read(last), read(side), algebra)]) for side in answer.sides[:-1])])


def _equation(node: Named) -> Relation:
    return Relation(("=",), (node.name, node.text))


def _same_kind(gold: Unordered, answer: Unordered) -> bool:
    """Both are values, or both unions; inequalities joined by "or" are a union of intervals where the gold answer has them."""
    return (gold.kind == "union") == (answer.kind == "union") or (
        answer.kind == "union"
        and any(isinstance(item, Relation) for item in gold.items)
        and all(isinstance(item, Relation | Leaf) for item in gold.items)
    )


def _ordered(gold: Ordered, answer: Ordered, algebra: Algebra) -> bool | None:
    gold, answer = (
        as_tuple(side) if other.brackets == "()" else as_matrix(side) if other.brackets == "" else side
        for side, other in ((gold, answer), (answer, gold))
    )
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


def _as_list(gold: Node, answer: Node, algebra: Algebra) -> bool | None:
    """`1/2 or 0.5` is one value, and `AC` the list of the choices A and C."""
    if isinstance(gold, Unordered) and isinstance(answer, Unordered):
        return False
    several, single = (gold, answer) if isinstance(gold, Unordered) else (answer, gold)
    if not isinstance(several, Unordered) or not several.items:
        return False
    if isinstance(single, Leaf) and (letters := _LETTERS.fullmatch(single.text)):
        chosen = [_letter_and_value(item)[0] for item in several.items]
        return list(letters[1]) == sorted(set(letters[1])) == sorted(chosen)  # `CBA` is an order
    if not several.is_list:
        return False
    return _all(equal(item, single, algebra) if several is gold else equal(single, item, algebra) for item in several.items)


def _interval(gold: Relation, answer: Ordered | Unordered, algebra: Algebra) -> bool | None:
    """A gold inequality of one variable also equals its interval of solutions, but not vice versa: that would restate the problem."""
    signs, sides = gold.signs, gold.sides
    if signs == ("!=",) and SYMBOL.fullmatch(sides[0]) and read_number(sides[1]):
        return equal(but([sides[1]]), answer, algebra)
    if set(signs) <= {">", ">="}:
        signs, sides = tuple(sign.replace(">", "<") for sign in reversed(signs)), tuple(reversed(sides))
    if not set(signs) <= {"<", "<="}:
        return False
    if len(signs) == 1 and _UNKNOWN_VALUE.fullmatch(sides[0]):
        signs, sides = ("<", *signs), ("-\\infty", *sides)
    elif len(signs) == 1:
        signs, sides = (*signs, "<"), (*sides, "\\infty")
    if len(signs) != 2 or not _UNKNOWN_VALUE.fullmatch(sides[1]):
        return False
    brackets = ("[" if "=" in signs[0] else "(") + ("]" if "=" in signs[1] else ")")
    return equal(Ordered(brackets, (Leaf(sides[0]), Leaf(sides[2]))), answer, algebra)


def _all(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return False if False in found else None if None in found else True


def _any(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return True if True in found else None if None in found else False
