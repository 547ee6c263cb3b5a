"""The structure of an answer above its expressions: lists, sets, tuples, intervals, matrices, unions, relations, units.

`read` takes `respell`ed text to a tree whose leaves are texts of expressions. It never fails: what has no structure is a leaf.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal

from polaris.reward import phrases
from polaris.reward.nodes import Approximated, Choice, Leaf, Named, Node, Ordered, Quantified, Relation, Unordered
from polaris.reward.number import read_number
from polaris.reward.spelling import tighten, unwrap
from polaris.reward.units import several_units, split_unit

_BEGIN, _END = (rf"\\{word}\{{([pbvBV]?)(?:small)?(?:matrix|array)\}}" for word in ("begin", "end"))
_MATRIX = re.compile(rf"[(\[]?{_BEGIN}(?:\{{[lcr|]*\}})?(.*?){_END}[)\]]?")
_SYSTEM = re.compile(r"\{?\\begin\{cases\}((?:(?!\\end\{cases\}).)*)\\end\{cases\}\}?")
_COLUMN = re.compile(r"\\begin\{(array|matrix)\}(?:\{[lcr|]*\})?([^&]*)\\end\{\1\}")
_ROW_GAP = re.compile(r"\\\\\[\d*[a-z]*\]")
_THOUSANDS = re.compile(r"(?<![\d.])[+-]?\$?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!\d)")
_EITHER = re.compile(r"\\text\{either ?\}|(?<![A-Za-z])either ", re.IGNORECASE)
_OR = re.compile(r"\\text\{,?or\}|(?<![A-Za-z\\])or(?![A-Za-z])|;", re.IGNORECASE)
_AND = re.compile(r"\\text\{,?and\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\text\{,\}", re.IGNORECASE)
_SIGNS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\equiv": "==", "\\approx": "~"}
_SIGN = re.compile(r"\\(?:le|ge|ne|equiv|approx)(?![A-Za-z])|<=|>=|[=<>]")
_SYMBOL = r"(?:[A-Za-z]'*(?:_(?:[A-Za-z0-9]|\\[a-z]+ ?|\{[^{}=<>]{1,24}\}))?|\\[a-zA-Z]+ ?)"
SYMBOL = re.compile(_SYMBOL)
_NAME = re.compile(
    rf"{_SYMBOL}(?:(?:\^\{{-1\}})?\([A-Za-z0-9, ]+\))?|\({_SYMBOL}(?:,{_SYMBOL})+\)|{_SYMBOL}(?:,{_SYMBOL})+|\\text\{{[^{{}}]*\}}"
    rf"|\\\{{\({_SYMBOL}(?:,{_SYMBOL})+\)\\\}}"
    r"|\\(?:vec|overrightarrow|hat|bar) ?\{[A-Za-z]{1,2}\}|\{[A-Za-z]\}|\\frac\{[A-Z]{1,3}\}\{[A-Z]{1,3}\}|\|[A-Z]{2}\|"
    r"|m?\\(?:angle|triangle) ?[A-Z]{1,3}|\\overline\{[A-Z]{2}\}|\\frac\{d[A-Za-z]\}\{d[A-Za-z]\}"
    r"|[A-Z]{2,8}|[A-Z][a-z ]{2,39}|[a-z ]{5,40}"
)
_DENIED = re.compile(
    r"\\(?:l?not|neg|n?sim)(?![A-Za-z])|^\W*(?:text\W+)?(?:not|never|wrong|incorrect|anything|everything)\b|\b(?:not|never|but|except)\W*$",
    re.IGNORECASE,
)
_MEMBER = re.compile(rf"(?:{_SYMBOL}|\({_SYMBOL}(?:,{_SYMBOL})+\))\\in(?![A-Za-z]) ?(.*)")
_BUILDER = re.compile(rf"\\\{{{_SYMBOL}(?:\\in ?\(-\\infty,\\infty\))?[|:](.*)\\\}}")
_FAMILY = re.compile(rf"\\\{{([^|:]+)[|:]({_SYMBOL}\\in(?![A-Za-z]).*)\\\}}")
_PUNCTURED = re.compile(r"\(-\\infty,\\infty\)\\setminus ?\\\{([^{}]*)\\\}")
_RATIO = re.compile(r"(?:.*=)?(\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+)")
_CLOCK = re.compile(r"(\d{1,2}:\d\d) ?(?:\\text\{ ?)?([AaPp])\.? ?[Mm]\.?\}?")
_LISTED = re.compile(r"\\text\{([^{}]*(?:\d|[,;]| and | or )[^{}]*)\}")
_UPRIGHT = re.compile(r"\\text\{(.*\\.*)\}")
_LEADING_SIGN = re.compile(r"^\s*(?:=|\\approx(?![A-Za-z]))")
_LETTER_CUP = re.compile(r"(?<=[)\]}])U(?=[(\[\\])")
_ALL_REALS = re.compile(r"\\text\{(?:the )?(?:set of )?(?:all |any )?real(?:s| numbers?)\}|(?:all |any )real(?:s| numbers?)", re.IGNORECASE)
_IF = re.compile(r"^,?(?:\\text\{(?:if|for|when|as) ?\}|(?:if|for|when) )|,$")
_GOES_ON = re.compile(r"(?:\\ldots|\.\.\.) ?$")
_TURNED = str.maketrans("<>", "><")
_CONSTANTS = ("\\pi", "e", "i")
_SHIFTED = re.compile(rf"({_SYMBOL})([+-])([\d.]+|\\frac\{{\d+\}}\{{\d+\}})")
_ABSOLUTE = re.compile(r"\|([^|]*[A-Za-z][^|]*)\|")
_POSITIVE = re.compile(r"(?:\d|\\(?:frac|sqrt|pi)(?![a-z]))[^A-Za-z+-]*(?:\\(?:frac|sqrt|pi|cdot)[^A-Za-z+-]*)*")
_NUMBERED = re.compile(r"(.+)_(\d)")
_SIGNED = re.compile(r"\\(?:pm|mp)(?![A-Za-z]) ?")


def read(text: str) -> Node:
    """The tree of a `respell`ed text."""
    text = _LETTER_CUP.sub(r"\\cup ", tighten(_LEADING_SIGN.sub("", phrases.approximated(text))))
    if chosen := phrases.choice(text):
        return Choice(chosen[0], read(chosen[1]))
    if said := phrases.statement(text):
        return read(unwrap(said))
    if (family := _FAMILY.fullmatch(text)) and not SYMBOL.fullmatch(family[1]):
        text = f"{family[1]},{family[2]}"
    if clause := phrases.clause(text):
        domain = read(clause.condition) if clause.kind is None else clause.kind
        return Quantified(clause.rest, read(clause.rest), clause.symbols, domain)
    for whole in (_MEMBER, _BUILDER, _LISTED, _UPRIGHT):
        if (found := whole.fullmatch(text)) and found[1] and _encloses(f"{{{found[1]}}}", "{", "}"):
            return read(found[1])
    if system := _SYSTEM.fullmatch(text):
        return _system(system[1])
    if (column := _COLUMN.fullmatch(text)) and all(_signs(row)[0] for row in _rows(column[2])):
        return _system(column[2])
    chunks = [[text]] if _THOUSANDS.fullmatch(text) else _chunks(text)
    if sum(map(len, chunks)) > 1:
        return _several(chunks, ";" not in text)
    return _item(chunks[0][0] if chunks else text)


def _item(text: str) -> Node:
    """What is no list."""
    if clock := _CLOCK.fullmatch(text):
        return Leaf(clock[1], f"{clock[2].lower()}m")
    if ratio := _RATIO.fullmatch(text):
        return Ordered("::", tuple(Leaf(item) for item in ratio[1].split(":")))
    if measures := several_units(text):
        return Ordered("+", tuple(Leaf(*measure) for measure in measures))
    pieces = _split(text, "\\cup")
    if len(pieces) > 1:
        return _union([read(piece) for piece in pieces])
    if text in ("\\emptyset", "\\text{empty set}"):
        return Unordered(())
    if (punctured := _PUNCTURED.fullmatch(text)) and all(map(read_number, punctured[1].split(","))):
        return but(punctured[1].split(","))
    if _ALL_REALS.fullmatch(text):
        return Ordered("()", (Leaf("-\\infty"), Leaf("\\infty")))
    return _relation(text) or _bracketed(text) or _signed(text) or _leaf(text)


def but(points: Sequence[str]) -> Node:
    """All real numbers but some."""
    found = {number.value: point for point in points if (number := read_number(point))}
    edges = ["-\\infty", *(found[value] for value in sorted(found)), "\\infty"]
    return Unordered(tuple(Ordered("()", (Leaf(low), Leaf(high))) for low, high in itertools.pairwise(edges)), "union")


def _rows(rows: str) -> list[str]:
    """Rows without what stands between them; one that begins with a sign goes on with the row before."""
    found: list[str] = []
    for row in _ROW_GAP.sub(r"\\\\", rows).split("\\\\"):
        row = re.sub(r"&(?=[=<>]|\\(?:le|ge|ne|approx)(?![A-Za-z]))", "", row.strip(" ,;").removesuffix(".")).strip()
        if found and _SIGN.match(row):
            found[-1] += row
        elif row:
            found.append(row)
    return found


def _system(rows: str) -> Node:
    """Equations under one brace are a list; a function by cases is a set of (value, condition)."""
    cells = [[read(_IF.sub("", cell)) for cell in row.removeprefix("&").split("&")] for row in _rows(rows)]
    return _unnamed([row[0] if len(row) == 1 else Ordered("", tuple(row)) for row in cells])


def _chunks(text: str) -> list[list[str]]:
    """The items of a list that no brackets hold, as a list for each side of "or" and semicolons."""
    chunks = [
        [part for piece in _split_all(chunk, _AND) for part in _split(piece, ",")] for chunk in _split_all(_EITHER.sub("", text), _OR)
    ]
    return [found for chunk in chunks if (found := [stripped for part in chunk if (stripped := part.strip())])]


def _several(chunks: list[list[str]], or_: bool) -> Node:
    """A list; groups of unknowns, as in `x=1, y=2 or x=2, y=1`, are items; `x=1 or y=2` (`or_`) gives none its value."""
    groups = [[read(part) for part in chunk] for chunk in chunks]
    items = [item for group in groups for item in group]
    systems = all(isinstance(item, Unordered) and _solution([item]) for item in items)
    groups = [[item] for item in items] if systems else groups if len(groups) > 1 else _repeated(items)
    solutions = _solutions(groups)
    if or_ and not solutions and len(groups) == len(items) and _solution(items):
        return Unordered(tuple(Relation(("=",), (item.name, item.text)) for item in items if isinstance(item, Named)))
    return _unnamed(solutions or (_between(items) if len(chunks) == 1 else None) or items)


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


def _solutions(groups: list[list[Node]]) -> list[Node]:
    """Each group as `(x, y) = (1, 2)`, where every one gives the same two or more unknowns their values; else empty."""
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


def _values(items: list[Node], kind: Literal["values", "solutions", "set"] = "values") -> Node:
    """Values without repetition, lists in the list spread out; a single value is itself."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Unordered) and item.is_list else [item]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Unordered(unique, kind)


def _union(items: list[Node]) -> Node:
    if all(isinstance(item, Unordered | Leaf) for item in items):
        return _values([part for item in items for part in (item.items if isinstance(item, Unordered) else (item,))], "set")
    return Unordered(tuple(dict.fromkeys(items)), "union")


def _relation(text: str) -> Node | None:
    """A relation; `name = value` is the value. The name is one symbol, a function, a tuple of them or words that deny nothing."""
    signs, sides = _signs(text)
    if not signs or not all(sides):
        return None
    if "mod" not in text:
        signs = tuple("=" if sign == "==" else sign for sign in signs)
    if signs[-1] == "=" and (cut := _GOES_ON.search(sides[-1])) and read_number(sides[-1][: cut.start()]):
        signs = (*signs[:-1], "~")
    if "~" in signs:
        return _approximated(signs, sides)
    if found := _absolute(signs, sides):
        return found
    if set(signs) == {"="} and len(sides) > 2 and all(map(SYMBOL.fullmatch, sides[:-1])) and not SYMBOL.fullmatch(sides[-1]):
        return Unordered(tuple(Named(side, sides[-1], read(sides[-1])) for side in dict.fromkeys(sides[:-1])))
    named = set(signs) == {"="} and _NAME.fullmatch(sides[0]) and not _DENIED.search(sides[0])
    if named and numbers_agree(sides):
        value = read(sides[-1])
        if isinstance(value, Quantified):
            return Quantified(f"{sides[0]}={value.text}", Named(sides[0], value.text, value.value), value.symbols, value.domain)
        return Named(sides[0], sides[-1], value)
    if signs == ("=",) and SYMBOL.fullmatch(sides[1]) and read_number(sides[0]):
        return Named(sides[1], sides[0], read(sides[0]))
    return Relation(signs, sides)


def _approximated(signs: tuple[str, ...], sides: tuple[str, ...]) -> Node:
    """`name \\approx 3.14` is the name's value; else a decimal behind, or before, what it is the rounding of."""
    if (
        _NAME.fullmatch(sides[0])
        and sides[0] not in _CONSTANTS
        and set(signs) == {"~"}
        and len(sides) == 2
        and not _DENIED.search(sides[0])
        and read_number(sides[1])
    ):
        return Named(sides[0], sides[1], read(sides[1]))
    if "~" in signs[:-1] or set(signs[:-1]) - {"="}:
        return Relation(signs, sides)
    exact, decimal = read("=".join(sides[:-1])), read(_GOES_ON.sub("", sides[-1]))
    if not _is_number(decimal):
        exact, decimal = decimal, exact
    if not isinstance(decimal, Leaf) or not _is_number(decimal):
        return Relation(signs, sides)
    if isinstance(exact, Named):
        return Named(exact.name, exact.text, Approximated(exact.value, decimal))
    return Approximated(exact, decimal)


def _is_number(node: Node) -> bool:
    number = read_number(node.text) if isinstance(node, Leaf) else None
    return number is not None and number.form != "quotient"


def _absolute(signs: tuple[str, ...], sides: tuple[str, ...]) -> Node | None:
    """`|x| < 1` as `-1 < x < 1`, `|x| > 1` as `x < -1 or x > 1`, `1 < |x| < 2` as both of its halves; for bounds that are positive."""
    if _ABSOLUTE.fullmatch(sides[-1]):
        signs, sides = tuple(sign.translate(_TURNED) for sign in signs), sides[::-1]
    if len(signs) == 2 and set(signs) <= {"<", "<="} and _POSITIVE.fullmatch(sides[0]) and (inner := _ABSOLUTE.fullmatch(sides[1])):
        far, near = sides[2], sides[0]
        return Unordered((Relation(signs[::-1], (f"-{far}", inner[1], f"-{near}")), Relation(signs, (near, inner[1], far))))
    inner = _ABSOLUTE.fullmatch(sides[0])
    if not inner or len(signs) > 1 or signs[0][0] not in "<>" or not _POSITIVE.fullmatch(sides[1]):
        return None
    middle, low, high = inner[1], f"-{sides[1]}", sides[1]
    if shifted := _SHIFTED.fullmatch(middle):
        center = shifted[3] if shifted[2] == "-" else f"-{shifted[3]}"
        middle, low, high = shifted[1], f"{center}{low}", f"{center}+{high}"
    if signs[0].startswith("<"):
        return Relation((signs[0],) * 2, (low, middle, high))
    return Unordered((Relation((signs[0].replace(">", "<"),), (middle, low)), Relation(signs, (middle, high))))


def numbers_agree(sides: Sequence[str]) -> bool:
    """Whether the numbers in a chain that ends in one are that one, or round to it: not in `x = 5 = 7`."""
    last = read_number(sides[-1])
    numbers = [number for side in sides[:-1] if (number := read_number(side))]
    return last is None or all(abs(number.value - last.value) <= last.last_place / 2 for number in numbers)


def _unnamed(items: list[Node]) -> Node:
    """`x = 2, x = 3` and `x = 2, 3` are solutions for one name, which is left out; `x = 2, y = 3` stays."""
    names = {re.sub(r"_\d(?=[,)])", "", item.name) for item in items if isinstance(item, Named)}
    if len(names) != 1:
        return _values(items)
    return _values([item.value if isinstance(item, Named) else item for item in items], "solutions")


def _signs(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = [match for match in _SIGN.finditer(text) if _depth_is_zero(text, match.start())]
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    sides = tuple(text[edges[i] : edges[i + 1]].strip() for i in range(0, len(edges), 2))
    return tuple(_SIGNS.get(match[0], match[0]) for match in found), sides


def _bracketed(text: str) -> Node | None:
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in matrix[2].replace("\\hline", "").split("\\\\") if row.strip()]
        # Bars make a determinant or a norm.
        kind = matrix[1] if matrix[1] in ("v", "V") else ""
        return Ordered(kind, tuple(Ordered("", tuple(read(cell) for cell in row.split("&"))) for row in rows))
    opening = "\\{" if text.startswith("\\{") else text[:1]
    closing = "\\}" if text.endswith("\\}") else text[-1:]
    if opening not in ("(", "[", "\\{") or closing not in (")", "]", "\\}") or not _encloses(text, opening, closing):
        return None
    inner = text[len(opening) : -len(closing)].strip()
    items = _split(inner, ",")
    # `[-36,104]` holds two numbers; `-36,104` alone would be one.
    items = inner.split(",") if len(items) == 1 and _THOUSANDS.fullmatch(inner) else items
    if len(_SIGNED.findall(inner)) == 1 < len(items):
        return Unordered(tuple(dict.fromkeys(read(tighten(_SIGNED.sub(sign, text))) for sign in "+-")))
    if opening == "\\{":
        return _values([read(item) for item in items], "set") if inner else Unordered(())
    if len(items) == 1:
        return read(inner) if opening + closing == "()" and inner else None
    return Ordered(opening + closing, tuple(read(item) for item in items))


def _signed(text: str) -> Node | None:
    """`a \\pm b` is two values. Several signs may go together or not, so they stay as they are."""
    if len(_SIGNED.findall(text)) != 1:
        return None
    return Unordered(tuple(_leaf(tighten(_SIGNED.sub(sign, text))) for sign in "+-"))


def _leaf(text: str) -> Leaf:
    return Leaf(*split_unit(text.removeprefix("+")))


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators outside of all brackets; commas inside of numbers stay."""
    kept = {index for number in _THOUSANDS.finditer(text) for index in range(*number.span())} if separator == "," else set()
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        depth += _step(text, index)
        if depth == 0 and index not in kept and text.startswith(separator, index):
            parts.append(text[start:index].strip())
            index += len(separator)
            start = index
            continue
        index += 1
    return [*parts, text[start:].strip()]


def _split_all(text: str, pattern: re.Pattern[str]) -> list[str]:
    parts, start = [], 0
    for match in pattern.finditer(text):
        if _depth_is_zero(text, match.start()):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _step(text: str, index: int) -> int:
    """Change of depth at a character; intervals open and close with either bracket, so all kinds count alike."""
    return (text[index] in "([{") - (text[index] in ")]}")


def _depth_is_zero(text: str, end: int) -> bool:
    return sum(_step(text, index) for index in range(end)) == 0


def _encloses(text: str, opening: str, closing: str) -> bool:
    """Whether the first bracket is closed by the last."""
    depth = 0
    for index in range(len(text)):
        depth += _step(text, index)
        if depth == 0 and index < len(text) - 1 and index >= len(opening) - 1:
            return False
    return depth == 0
