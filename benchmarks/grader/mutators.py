"""Mutations of a gold answer whose verdict is known by construction, in families.

A mutator takes a random generator and a gold text and returns an answer, or None where it does not apply or where it could not
vouch for the verdict. Nothing here uses the grader's own code.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from fractions import Fraction

Mutator = Callable[[random.Random, str], str | None]

_INTEGER = re.compile(r"-?[1-9]\d{0,14}|0")
_QUOTIENT = re.compile(r"(-?)(?:\\d?frac\{(\d+)\}\{(\d+)\}|(\d+)/(\d+))")
_DECIMAL = re.compile(r"-?\d+\.\d+")
_PAIR = re.compile(r"\(([^()\[\],]+),([^()\[\],]+)\)")
_INTERVAL = re.compile(r"([(\[])([^()\[\],]+),([^()\[\],]+)([)\]])")
_SYMBOLIC = re.compile(r"[0-9a-zA-Z+\-*/^(){}. ]|\\(?:frac|dfrac|sqrt|pi|cdot|sin|cos|tan|ln|theta|omega|alpha|lambda)(?![A-Za-z])")
_SCOPES = re.compile(
    r"\\(?:sum|int|prod|lim|log|ln|sin|cos|tan|pm|text|mbox|begin|ldots|dots|approx|max|min)|[=<>,;:!|%$]|\\leq?|\\geq?|e[+-]\d"
)
_COEFFICIENT = re.compile(r"(?<![\^_\d.\\{}])\d+(?=[a-df-zA-Z(]|\\sqrt|\\pi)")
_WORDY = re.compile(r"[A-Za-z]{3,}")


def is_expression(gold: str) -> bool:
    """A formula with a symbol or a root, of one value: no list, relation, words, unit or number."""
    bare = re.sub(r"\\[a-zA-Z]+", "", gold)
    symbolic = bool(re.search(r"\\(?:sqrt|pi)|(?<!\\)\b[a-df-zA-Z]\b", gold))
    return symbolic and not _WORDY.search(bare) and not _SYMBOLIC.sub("", gold) and _balanced(gold)


def value(gold: str) -> Fraction | None:
    """The value of an integer, quotient or decimal, None for anything else."""
    if found := _QUOTIENT.fullmatch(gold):
        top, bottom = int(found[2] or found[4]), int(found[3] or found[5])
        return (-1 if found[1] else 1) * Fraction(top, bottom) if bottom else None
    return Fraction(gold) if _INTEGER.fullmatch(gold) or _DECIMAL.fullmatch(gold) else None


def spaces(draw: random.Random, gold: str) -> str | None:
    gap = draw.choice([" ", "\\, ", "\\ ", "  ", "\\; ", "\\quad "])
    if "\\text" in gold or "\\mbox" in gold or re.search(r"\de[+-]?\d", gold) or _WORDY.search(re.sub(r"\\[a-zA-Z]+", "", gold)):
        return None
    spaced = re.sub(r"(?<=[\w})\]])([+=<>])(?=[\w\\({])", rf"{gap}\1{gap}".replace("\\", r"\\").replace(r"\\1", r"\1"), gold)
    return f"{gap}{spaced}{gap}"


def sized_brackets(draw: random.Random, gold: str) -> str | None:
    if not re.search(r"[(\[]", gold) or "\\left" in gold or "\\sqrt[" in gold or "\\text" in gold:
        return None
    left, right = draw.choice([("\\left", "\\right"), ("\\bigl", "\\bigr"), ("\\Big", "\\Big")])
    return re.sub(r"[)\]]", lambda end: f"{right}{end[0]}", re.sub(r"[(\[]", lambda start: f"{left}{start[0]}", gold))


def other_fraction(draw: random.Random, gold: str) -> str | None:
    if "\\frac" not in gold and "\\dfrac" not in gold:
        return None
    return re.sub(r"\\[dt]?frac", lambda _: draw.choice(["\\frac", "\\dfrac", "\\tfrac"]), gold)


def wrapping(draw: random.Random, gold: str) -> str | None:
    if "$" in gold:
        return None
    return draw.choice(["${}$", "\\({}\\)", "{}.", "\\displaystyle {}", "{{{}}}", "\\boxed{{{}}}", "$${}$$"]).format(gold)


def thousands(draw: random.Random, gold: str) -> str | None:
    if not _INTEGER.fullmatch(gold) or abs(int(gold)) < 1000:
        return None
    return f"{int(gold):,}".replace(",", draw.choice([",", "{,}", ",\\!", "\\,", "\\ "]))


def added_unit(draw: random.Random, gold: str) -> str | None:
    unit = draw.choice(
        ["\\text{ cm}", "\\text{ units}", " \\text{ square units}", "\\,\\text{km/h}", "^\\circ", "\\mbox{ ways}", " dollars"]
    )
    return f"{gold}{unit}" if value(gold) is not None else None


def equal_number(draw: random.Random, gold: str) -> str | None:
    """Decimal, quotient in lowest terms, mixed number; a decimal without end to 10 significant digits or more."""
    number = value(gold)
    if number is None:
        return None
    if number.denominator == 1:
        return draw.choice([f"{number}.0", f"{number}.00", f"\\text{{{number}}}" if number >= 0 else f"{number}.", f"{number}"])
    sign, top, bottom = "-" if number < 0 else "", abs(number.numerator), number.denominator
    forms = [f"{sign}\\frac{{{top}}}{{{bottom}}}", f"{sign}{top}/{bottom}", f"\\frac{{{number.numerator}}}{{{bottom}}}"]
    if top > bottom:
        forms.append(f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}")
    if 10**12 % bottom == 0:
        forms.append(f"{sign}{top * 10**12 // bottom / 10**12!r}" if top < 1000 * bottom else forms[0])
    elif top * 100 > bottom and not _DECIMAL.fullmatch(gold):
        forms.append(f"{sign}{top * 10**12 // bottom // 10**12}.{top * 10**12 // bottom % 10**12:012d}")
    return draw.choice(forms)


def commuted_sum(draw: random.Random, gold: str) -> str | None:
    terms = _terms(gold)
    if terms is None:
        return None
    draw.shuffle(terms)
    return "".join(terms).removeprefix("+")


def equal_expression(draw: random.Random, gold: str) -> str | None:
    if not is_expression(gold):
        return None
    number = draw.randint(2, 9)
    forms = [
        f"\\frac{{{number}\\left({gold}\\right)}}{{{number}}}",
        f"({gold})+{number}-{number}",
        f"-\\left(-({gold})\\right)",
        f"1\\cdot({gold})",
    ]
    return draw.choice(forms)


def permuted_list(draw: random.Random, gold: str) -> str | None:
    items = _items(gold)
    if items is None:
        return None
    draw.shuffle(items)
    last = items.pop()
    return draw.choice([", ".join([*items, last]), f"{', '.join(items)} \\text{{ and }} {last}", "\\{" + ",".join([*items, last]) + "\\}"])


def named(draw: random.Random, gold: str) -> str | None:
    simple = value(gold) is not None or (is_expression(gold) and not re.search(r"(?<!\\)\b[xyzAS]\b", gold))
    return f"{draw.choice(['x', 'y', 'A', 'S'])} = {gold}" if simple else None


def next_number(draw: random.Random, gold: str) -> str | None:
    """One more or less in the last digit."""
    number = value(gold)
    if number is None or "frac" in gold or "/" in gold:
        return None
    places = len(gold.partition(".")[2])
    moved = number * 10**places + draw.choice([1, -1])
    return f"{float(moved / 10**places):.{places}f}" if places else str(moved)


def other_sign(draw: random.Random, gold: str) -> str | None:
    number = value(gold)
    if number:
        return gold.removeprefix("-") if gold.startswith("-") else f"-{gold}"
    return f"-({gold})" if number is None and is_expression(gold) else None


def swapped_pair(draw: random.Random, gold: str) -> str | None:
    found = _PAIR.fullmatch(gold)
    return f"({found[2]},{found[1]})" if found and _plainly_different(found[1], found[2]) else None


def other_bracket(draw: random.Random, gold: str) -> str | None:
    found = _INTERVAL.fullmatch(gold)
    if not found or not _plainly_different(found[2], found[3]):
        return None
    start, end = draw.choice([("([".replace(found[1], ""), found[4]), (found[1], ")]".replace(found[4], ""))])
    return f"{start}{found[2]},{found[3]}{end}"


def dropped_item(draw: random.Random, gold: str) -> str | None:
    items = _items(gold)
    if items is None:
        return None
    items.pop(draw.randrange(len(items)))
    return ", ".join(items)


def added_item(draw: random.Random, gold: str) -> str | None:
    items = _items(gold)
    if items is not None:
        return ", ".join([*items, "987654"])
    return draw.choice([f"{gold}, 987654", f"{gold} \\text{{ or }} 987654", f"987654 or {gold}"]) if value(gold) is not None else None


def other_numerator(draw: random.Random, gold: str) -> str | None:
    found = _QUOTIENT.fullmatch(gold)
    if not found:
        return None
    top, bottom = int(found[2] or found[4]), found[3] or found[5]
    return f"{found[1]}\\frac{{{top + draw.choice([1, 2, 10])}}}{{{bottom}}}"


def other_expression(draw: random.Random, gold: str) -> str | None:
    return (
        draw.choice([f"({gold})+1", f"2({gold})", f"{gold}-\\frac{{1}}{{10^9}}", f"\\frac{{{gold}}}{{3}}"]) if is_expression(gold) else None
    )


def other_power(draw: random.Random, gold: str) -> str | None:
    places = list(re.finditer(r"(?<![a-zA-Z\\])([a-df-zA-Z])\^(?:\{([2-8])\}|([2-8])(?!\d))", gold))
    if not places or not is_expression(gold):
        return None
    place = draw.choice(places)
    return f"{gold[: place.start()]}{place[1]}^{{{int(place[2] or place[3]) + 1}}}{gold[place.end() :]}"


def other_unit(draw: random.Random, gold: str) -> str | None:
    found = re.fullmatch(r"(.+)\\(?:text|mbox)\{ ?(cm|feet|miles|inches|days|hours|min)\}", gold)
    return f"{found[1]}\\text{{ kg}}" if found else None


def scaled_word(draw: random.Random, gold: str) -> str | None:
    word = draw.choice(["million", "hundred", "dozen", "thirds", "squared", "or more", "below zero", "if even", "and 7", "factorial"])
    return f"{gold} \\text{{ {word}}}" if value(gold) else None


def written_product(draw: random.Random, gold: str) -> str | None:
    """`2x` as `2 \\cdot x`, `3\\sqrt{2}` as `3 \\times \\sqrt{2}`."""
    if not is_expression(gold) or not _COEFFICIENT.search(gold):
        return None
    sign = draw.choice([" \\cdot ", " \\times ", "\\,", "*"])
    return _COEFFICIENT.sub(lambda found: f"{found[0]}{sign}", gold)


def moved_point(draw: random.Random, gold: str) -> str | None:
    """Ten times or a tenth of it."""
    number = value(gold)
    if not number or "frac" in gold or "/" in gold:
        return None
    return f"{gold}0" if "." not in gold else re.sub(r"(\d)\.(\d)", r"\1\2.", f"{gold}0")


def swapped_digits(draw: random.Random, gold: str) -> str | None:
    places = [found.start() for found in re.finditer(r"(?=(\d)(\d))", gold) if found[1] != found[2]]
    if not places or not _INTEGER.fullmatch(gold):
        return None
    place = draw.choice(places)
    return f"{gold[:place]}{gold[place + 1]}{gold[place]}{gold[place + 2 :]}"


def other_letter(draw: random.Random, gold: str) -> str | None:
    """One of several letters becomes a new one everywhere, so that the roles differ."""
    letters = sorted(set(re.findall(r"(?<![\\a-zA-Z])[a-df-hj-z](?![a-zA-Z])", gold)))
    if len(letters) < 2 or not is_expression(gold):
        return None
    return re.sub(rf"(?<![\\a-zA-Z]){draw.choice(letters)}(?![a-zA-Z])", "w" if "w" not in letters else "v", gold)


def dropped_part(draw: random.Random, gold: str) -> str | None:
    """A root without its sign, or a multiple of pi without pi."""
    changed = [re.sub(r"\\sqrt\{(\d+)\}", r"\\cdot \1", gold, count=1), re.sub(r"(?<=\d)\s*\\pi(?![a-z])", "", gold, count=1)]
    found = [text for text in changed if text != gold and not text.startswith("\\cdot") and not re.search(r"[-+{(]\s*\\cdot", text)]
    return draw.choice(found) if found and is_expression(gold) else None


CORRECT: dict[str, Mutator] = {
    function.__name__: function
    for function in (
        spaces,
        sized_brackets,
        other_fraction,
        wrapping,
        thousands,
        added_unit,
        equal_number,
        commuted_sum,
        equal_expression,
        written_product,
        permuted_list,
        named,
    )
}
WRONG: dict[str, Mutator] = {
    function.__name__: function
    for function in (
        next_number,
        moved_point,
        swapped_digits,
        other_sign,
        swapped_pair,
        other_bracket,
        dropped_item,
        added_item,
        other_numerator,
        other_expression,
        other_power,
        other_letter,
        dropped_part,
        other_unit,
        scaled_word,
    )
}


def _balanced(text: str) -> bool:
    return text.count("(") == text.count(")") and text.count("{") == text.count("}") and "[" not in text


def _terms(gold: str) -> list[str] | None:
    """The signed terms of a sum, where nothing in it could reach over a sign."""
    if _SCOPES.search(gold) or not re.search(r"(?<=[\w})])\s*[+-]", gold) or not is_expression(gold):
        return None
    terms, depth = [""], 0
    for character in gold.replace(" ", "") if "\\" not in gold else gold:
        depth += (character in "({[") - (character in ")}]")
        if character in "+-" and depth == 0:
            terms.append(character)
        else:
            terms[-1] += character
    terms = [term if term[0] in "+-" else f"+{term}" for term in terms if term.strip()]
    return terms if len(terms) > 1 and all(len(term.strip(" +-")) for term in terms) else None


def _items(gold: str) -> list[str] | None:
    """The values of a list of all answers, each an integer or a quotient, all different."""
    bare = gold.removeprefix("\\{").removesuffix("\\}")
    items = [item.strip() for item in bare.split(",")]
    numbers = [value(item) for item in items]
    # `1,234` could be one number.
    if len(items) < 2 or None in numbers or len(set(numbers)) < len(items) or re.search(r"\d,\d{3}(?!\d)", gold):
        return None
    return items


def _plainly_different(one: str, other: str) -> bool:
    one, other = one.strip(), other.strip()
    numbers = value(one), value(other)
    return numbers[0] != numbers[1] if None not in numbers else (None in numbers and numbers[0] != numbers[1])
