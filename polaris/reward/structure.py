"""The structure of an answer: lists, sets, tuples, intervals, matrices, unions, relations, units.

`read` turns `respell`ed text into a tree whose leaves are texts of expressions. It never fails: text without structure is a leaf.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from polaris.reward import phrases
from polaris.reward.brackets import THOUSANDS, depth_is_zero, encloses, split, split_all
from polaris.reward.matrices import times, transpose
from polaris.reward.nodes import SYMBOL, Approximated, Choice, Leaf, Named, Node, Ordered, Quantified, Relation, Unordered
from polaris.reward.number import read_number
from polaris.reward.residues import residue
from polaris.reward.solutions import REALS, TURNED, but, several, union, unnamed, values
from polaris.reward.spelling import tighten, unwrap
from polaris.reward.units import several_units, split_unit

_BEGIN, _END = (rf"\\{word}\{{([pbvBV]?)(?:small)?(?:matrix|array)\}}" for word in ("begin", "end"))
_MATRIX = re.compile(rf"[(\[]?{_BEGIN}(?:\{{[lcr|]*\}})?(.*?){_END}[)\]]?")
_SYSTEM = re.compile(r"\{?\\begin\{cases\}((?:(?!\\end\{cases\}).)*)\\end\{cases\}\}?")
_TABLE = re.compile(r"(\[?)\\begin\{(array|matrix)\}(?:\{[lcr|]*\})?(.*?)\\end\{\2\}")
_ROW_GAP = re.compile(r"\\\\\[\d*[a-z]*\]")
_EITHER = re.compile(r"\\text\{(?:either|both) ?\}|(?<![A-Za-z])(?:either|both) ", re.IGNORECASE)
_OUT_OF = re.compile(r"(\d+)(?:\\text\{ ?out of ?\}| out of )(\d+)")
_OR = re.compile(r"\\text\{,?or\}|(?<![A-Za-z\\])or(?![A-Za-z])|;", re.IGNORECASE)
_AND = re.compile(r"\\text\{,?and\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\text\{,\}", re.IGNORECASE)
_SIGNS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\equiv": "==", "\\approx": "~"}
_SIGN = re.compile(r"\\(?:le|ge|ne|equiv|approx)(?![A-Za-z])|<=|>=|[=<>]")
_SYMBOL = SYMBOL.pattern
_NAME = re.compile(
    rf"{_SYMBOL}(?:(?:\^\{{-1\}})?\([A-Za-z0-9, ]+\))?|\({_SYMBOL}(?:,{_SYMBOL})+\)|{_SYMBOL}(?:,{_SYMBOL})+|\\text\{{[^{{}}]*\}}"
    rf"|\\\{{\({_SYMBOL}(?:,{_SYMBOL})+\)\\\}}"
    r"|\\(?:vec|overrightarrow|hat|bar) ?\{[A-Za-z]{1,2}\}|\{[A-Za-z]\}|\\frac\{[A-Z]{1,3}\}\{[A-Z]{1,3}\}|\|[A-Z]{2}\|"
    r"|m?\\(?:angle|triangle) ?[A-Z]{1,3}|\\overline\{[A-Z]{2}\}|\\frac\{d[A-Za-z]\}\{d[A-Za-z]\}"
    r"|[A-Z](?: ?\\(?:cap|cup|setminus) ?[A-Z])+|\\complement_[A-Z] ?[A-Z]"
    r"|(?:Pr?|Var|E|\{[EP]\}|\\text\{(?:Pr?|Var|E)\})(?:\([^()]*\)|\[[^\[\]]*\])"
    r"|[A-Z]{2,8}|[A-Z][a-z ]{2,39}|[a-z ]{5,40}"
)
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_NUMBER_GAP = re.compile(r" *(?:,|\\text\{and\}|and)+ *")
_DENIED = re.compile(
    r"\\(?:l?not|neg|n?sim)(?![A-Za-z])|^\W*(?:text\W+)?(?:not|never|wrong|incorrect|anything|everything)\b|\b(?:not|never|but|except)\W*$",
    re.IGNORECASE,
)
_MEMBER = re.compile(rf"(?:{_SYMBOL}|\({_SYMBOL}(?:,{_SYMBOL})+\))\\in(?![A-Za-z]) ?(.*)")
_BUILDER = re.compile(rf"\\\{{{_SYMBOL}(?:\\in ?\(-\\infty,\\infty\))?[|:](.*)\\\}}")
_FAMILY = re.compile(rf"\\\{{([^|:]+)[|:]({_SYMBOL}\\in(?![A-Za-z]).*)\\\}}")
_TRANSPOSED = re.compile(r"([(\[].*[)\]]|\\begin.*\})\^(?:T|\\top ?|\{T\}|\{\\top ?\}|\\text\{T\}|\{\\text\{T\}\})")
_POWER = re.compile(r"[A-Z]\^(?:\{(?:-1|T|\d+|n)\}|T|\d|n)")
_POINT = re.compile(r"([A-Z]'?(?:_\d)?)(\(.*,.*\))")
_SCALED = re.compile(rf"([^\[\]&]+?)(?:\\cdot )?([(\[]?{_BEGIN}.*)", re.DOTALL)
_OF_REALS = re.compile(rf"{_SYMBOL}\\in ?\(-\\infty,\\infty\),(?=.*(?:[<>]|\\(?:le|ge|ne)(?![a-z])))")
_PUNCTURED = re.compile(r"([(\[].*[)\]])(?:\\setminus ?|-)\\\{([^{}]*)\\\}")
_EXCEPT = re.compile(
    r"(?:\\text\{)?(?:all )?real(?:s| numbers)(?: [a-z])? (?:except|other than|but|excluding)(?: for)? ?\}?"
    r"((?:[-\d.,/ ]|\\frac|[{}]|\\text\{and\}|and)+)",
    re.IGNORECASE,
)
_PART = r"(?:\d+(?:\.\d+)?|\d*(?:\\(?:frac\{\d+\}\{\d+\}|sqrt\{\d+\}|pi ?))+)"
_RATIO = re.compile(rf"(?:.*=)?({_PART}(?::{_PART})+)")
_RATIO_IN_WORDS = re.compile(r"(\d+)(?:\\text\{ ?to ?\}| to )(\d+)")
_REMAINDER = re.compile(r"(\d+)(?:\\text\{ ?(?:R|r|rem\.?|remainder) ?\}| (?:R|r|rem\.?|remainder) ?)(\d+)")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d) ?(?:\\text\{ ?)?([AaPp])\.? ?[Mm]\.?\}?")
_MONTH = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t|tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
)
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DATE = re.compile(rf"(?:\\text\{{)?(?:({_MONTH})\.? ?{_DAY}|{_DAY} (?:of )?({_MONTH})\.?)(?:,? ?(\d{{4}}))?\}}?", re.IGNORECASE)
_INFINITY = re.compile(r"(?:\\text\{)?(?:(negative |minus |-)|positive |plus |\+)?infinity\}?", re.IGNORECASE)
_NOTHING = re.compile(r"\\emptyset|(?:\\text\{)?(?:(?:the )?empty set|no solutions?)\}?", re.IGNORECASE)
_LISTED = re.compile(r"\\text\{([^{}]*(?:\d|[,;]| and | or )[^{}]*)\}")
_UPRIGHT = re.compile(r"\\text\{(.*\\.*)\}")
_LEADING_SIGN = re.compile(r"^\s*(?:=|\\approx(?![A-Za-z]))")
_LETTER_CUP = re.compile(r"(?<=[)\]}])U(?=[(\[\\])")
_ALL_REALS = re.compile(
    r"\\text\{(?:the )?(?:set of )?(?:all |any )?real(?:s| numbers?)\}|(?:all |any )real(?:s| numbers?)"
    r"|(?:\\text\{)?all real(?: numbers?)? ?\}?[a-z]",
    re.IGNORECASE,
)
_CONDITION = re.compile(rf"(.*(?:[<>]|\\[lg]e(?![a-z])).*)\(({_SYMBOL}\\ne(?![a-z])[^()]*)\)")
_IF = re.compile(r"^,?(?:\\text\{(?:if|for|when|as) ?\}|(?:if|for|when) )|,$")
_OTHERWISE = re.compile(r"otherwise|else", re.IGNORECASE)
_GOES_ON = re.compile(r"(?:\\ldots|\.\.\.) ?$")
_CONSTANTS = ("\\pi", "e", "i")
_SHIFTED = re.compile(rf"({_SYMBOL})([+-])([\d.]+|\\frac\{{\d+\}}\{{\d+\}})")
_ABSOLUTE = re.compile(r"\|([^|]*[A-Za-z][^|]*)\|")
_POSITIVE = re.compile(r"(?:\d|\\(?:frac|sqrt|pi)(?![a-z]))[^A-Za-z+-]*(?:\\(?:frac|sqrt|pi|cdot)[^A-Za-z+-]*)*")
_SIGNED = re.compile(r"\\(?:pm|mp)(?![A-Za-z]) ?")


def read(text: str) -> Node:
    """The tree of a `respell`ed text."""
    text = _LETTER_CUP.sub(r"\\cup ", tighten(_LEADING_SIGN.sub("", phrases.approximated(text))))
    if chosen := phrases.choice(text):
        return Choice(chosen[0], read(chosen[1]))
    if replied := phrases.reply(text):
        return Choice(replied[0], read(replied[1]))
    if said := phrases.statement(text):
        return read(unwrap(said))
    if date := _DATE.fullmatch(text):
        return Leaf(f"{(date[1] or date[4])[:3].lower()} {date[2] or date[3]} {date[5] or ''}")
    if (family := _FAMILY.fullmatch(text)) and not SYMBOL.fullmatch(family[1]):
        text = f"{family[1]},{family[2]}"
    text = text.removeprefix(found[0]) if (found := _OF_REALS.match(text)) else text
    if condition := _CONDITION.fullmatch(text):
        text = f"{condition[1]},{condition[2]}"
    if clause := phrases.clause(text):
        domain = read(clause.condition) if clause.kind is None else clause.kind
        return Quantified(clause.rest, read(clause.rest), clause.symbols, domain)
    for whole in (_MEMBER, _BUILDER, _LISTED, _UPRIGHT):
        if (found := whole.fullmatch(text)) and found[1] and encloses(f"{{{found[1]}}}", "{", "}"):
            return read(found[1])
    if system := _SYSTEM.fullmatch(text):
        return _system(system[1])
    if (table := _TABLE.fullmatch(text)) and all(_signs(row[-1])[0] or _OTHERWISE.search(row[-1]) for row in _cells(table[3])):
        return several([[read(cell) for cell in row] for row in _cells(table[3])], or_=True) if table[1] else _system(table[3])
    if (but_for := _EXCEPT.fullmatch(text)) and all(map(read_number, points := _NUMBER_GAP.split(but_for[1].strip(" }")))):
        return but(points)
    if "\\\\" in text and "\\begin" not in text:
        text = text.replace("\\\\", ",")
    chunks = [[text]] if THOUSANDS.fullmatch(text) else _chunks(text)
    if sum(map(len, chunks)) > 1:
        return several([[read(part) for part in chunk] for chunk in chunks], ";" not in text)
    return _item(chunks[0][0] if chunks else text)


def _item(text: str) -> Node:
    """What is no list."""
    if clock := _CLOCK.fullmatch(text):
        return Ordered("::", (Leaf(clock[1], f"{clock[3].lower()}m"), Leaf(clock[2])))
    if ratio := _RATIO.fullmatch(text):
        return Ordered("::", tuple(Leaf(item) for item in ratio[1].split(":")))
    if ratio := _RATIO_IN_WORDS.fullmatch(text):
        return Ordered("::", (Leaf(ratio[1]), Leaf(ratio[2])))
    if chance := _OUT_OF.fullmatch(text):
        return Leaf(f"\\frac{{{chance[1]}}}{{{chance[2]}}}")
    if parts := _REMAINDER.fullmatch(text):
        return Ordered("R", (Leaf(parts[1]), Leaf(parts[2])))
    if rest := residue(text, any_member=False):
        return rest
    if infinity := _INFINITY.fullmatch(text):
        return Leaf("-\\infty" if infinity[1] else "\\infty")
    if measures := several_units(text):
        return Ordered("+", tuple(Leaf(*measure) for measure in measures))
    pieces = split(text, "\\cup")
    if len(pieces) > 1:
        return union([read(piece) for piece in pieces])
    if _NOTHING.fullmatch(text):
        return Unordered((), "set")
    if (punctured := _PUNCTURED.fullmatch(text)) and all(map(read_number, points := punctured[2].split(","))):
        whole = _bracketed(punctured[1])
        if isinstance(whole, Ordered) and len(whole.items) == 2:
            return but(points, whole)
    if _ALL_REALS.fullmatch(text):
        return REALS
    return _relation(text) or _bracketed(text) or _signed(text) or _leaf(text)


def _rows(rows: str) -> list[str]:
    """Rows without their separators; a row that begins with a sign continues the row before."""
    found: list[str] = []
    for row in _ROW_GAP.sub(r"\\\\", rows).split("\\\\"):
        row = re.sub(r"&?([=<>]|\\(?:le|ge|ne|approx)(?![A-Za-z]))&?", r"\1", row.strip(" ,;").removesuffix(".")).strip()
        if found and _SIGN.match(row):
            found[-1] += row
        elif row:
            found.append(row)
    return found


def _cells(rows: str) -> list[list[str]]:
    return [[_IF.sub("", cell) for cell in row.removeprefix("&").split("&")] for row in _rows(rows)]


def _system(rows: str) -> Node:
    """Equations under one brace as a list, in any cells; a function by cases as a set of (value, condition)."""
    cells = _cells(rows)
    if any(len(row) > 1 for row in cells) and all(_is_assignment(cell) for row in cells for cell in row):
        return several([[read(cell) for cell in row] for row in cells], or_=False)
    return unnamed([read(row[0]) if len(row) == 1 else Ordered("", tuple(map(read, row))) for row in cells])


def _is_assignment(text: str) -> bool:
    signs, sides = _signs(text)
    return signs == ("=",) and SYMBOL.fullmatch(sides[0]) is not None


def _chunks(text: str) -> list[list[str]]:
    """The items of a list that no brackets hold, as a list for each side of "or" and semicolons."""
    chunks = [[part for piece in split_all(chunk, _AND) for part in split(piece, ",")] for chunk in split_all(_EITHER.sub("", text), _OR)]
    return [found for chunk in chunks if (found := [stripped for part in chunk if (stripped := part.strip())])]


def _relation(text: str) -> Node | None:
    """A relation; `name = value` is the value. The name is a symbol, a function, a tuple of them, or words without a negation."""
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
    if signs == ("==",) and SYMBOL.fullmatch(sides[0]) and (rest := residue(sides[1], any_member=True)):
        return Named(sides[0], sides[1], rest)
    named = set(signs) == {"="} and _NAME.fullmatch(sides[0]) and not _DENIED.search(sides[0])
    named = named or (set(signs) == {"="} and _POWER.fullmatch(sides[0]) and "\\begin{" in sides[-1])
    if named and numbers_agree(sides) and not (len(sides[0]) == 1 and sides[0] in _LETTER.findall(sides[-1])):
        value = read(sides[-1])
        if isinstance(value, Quantified):
            return Quantified(f"{sides[0]}={value.text}", Named(sides[0], value.text, value.value), value.symbols, value.domain)
        return Named(sides[0], sides[-1], value)
    if signs == ("=",) and SYMBOL.fullmatch(sides[1]) and read_number(sides[0]):
        return Named(sides[1], sides[0], read(sides[0]))
    return _both_signs(text) or Relation(signs, sides)


def _both_signs(text: str) -> Node | None:
    """`4x \\pm 3y = 0` as two equations."""
    if len(_SIGNED.findall(text)) != 1:
        return None
    return Unordered(tuple(Relation(*_signs(tighten(_SIGNED.sub(sign, text)))) for sign in "+-"))


def _approximated(signs: tuple[str, ...], sides: tuple[str, ...]) -> Node:
    """`name \\approx 3.14` is the name's value; else a decimal and, before or behind it, the value that it rounds."""
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
        signs, sides = tuple(sign.translate(TURNED) for sign in signs), sides[::-1]
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
    """Whether all numbers in a chain that ends in a number equal it or round to it: not in `x = 5 = 7`."""
    last = read_number(sides[-1])
    numbers = [number for side in sides[:-1] if (number := read_number(side))]
    return last is None or all(abs(number.value - last.value) <= last.last_place / 2 for number in numbers)


def _signs(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = [match for match in _SIGN.finditer(text) if depth_is_zero(text, match.start())]
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    sides = tuple(text[edges[i] : edges[i + 1]].strip() for i in range(0, len(edges), 2))
    return tuple(_SIGNS.get(match[0], match[0]) for match in found), sides


def _bracketed(text: str) -> Node | None:
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in matrix[2].replace("\\hline", "").split("\\\\") if row.strip()]
        # Bars make a determinant or a norm.
        kind = matrix[1] if matrix[1] in ("v", "V") else ""
        return Ordered(kind, tuple(Ordered("", tuple(read(cell) for cell in row.split("&"))) for row in rows))
    if (scaled := _SCALED.fullmatch(text)) and _MATRIX.fullmatch(scaled[2]) and not _is_sum(scaled[1]):
        whole = _bracketed(scaled[2])
        return times(scaled[1], whole) if isinstance(whole, Ordered) and whole.brackets == "" else None
    if point := _POINT.fullmatch(text):
        place = _bracketed(point[2])
        return Named(point[1], point[2], place) if isinstance(place, Ordered) else None
    if transposed := _TRANSPOSED.fullmatch(text):
        return transpose(read(transposed[1]))
    opening = "\\{" if text.startswith("\\{") else text[:1]
    closing = "\\}" if text.endswith("\\}") else text[-1:]
    if opening not in ("(", "[", "\\{") or closing not in (")", "]", "\\}") or not encloses(text, opening, closing):
        return None
    inner = text[len(opening) : -len(closing)].strip()
    items = split(inner, ",")
    # `[-36,104]` holds two numbers; `-36,104` alone would be one.
    items = inner.split(",") if len(items) == 1 and THOUSANDS.fullmatch(inner) else items
    if len(_SIGNED.findall(inner)) == 1 < len(items):
        return Unordered(tuple(dict.fromkeys(read(tighten(_SIGNED.sub(sign, text))) for sign in "+-")))
    if opening == "\\{":
        return values([read(item) for item in items], "set") if inner else Unordered((), "set")
    if len(items) == 1:
        return read(inner) if opening + closing == "()" and inner else None
    return Ordered(opening + closing, tuple(read(item) for item in items))


def _is_sum(text: str) -> bool:
    """Whether a factor is a sum that no brackets hold: `x+1` before a matrix."""
    return any(text[place] in "+-" and depth_is_zero(text, place) for place in range(1, len(text)))


def _signed(text: str) -> Node | None:
    """`a \\pm b` is two values. Several signs may go together or not, so they stay as they are."""
    if len(_SIGNED.findall(text)) != 1:
        return None
    return Unordered(tuple(_leaf(tighten(_SIGNED.sub(sign, text))) for sign in "+-"))


def _leaf(text: str) -> Leaf:
    return Leaf(*split_unit(text.removeprefix("+")))
