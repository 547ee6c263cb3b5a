"""The grader behind the recipe's published numbers: DeepScaleR's, derived from those of MATH and PRM800K.

An answer is correct if the texts are equal after MATH's clean-up, or equal item by item after PRM800K's. In the latter, integers and
quotients must be the same text; other items go to algebra if they are short enough.
Its known faults are kept: everything behind a unit's `\\text{ ` is cut off (`5 \\text{ or } 7` is 5), percent signs are
dropped, an answer `-36104` equals `[-36,104]`. Only the algebra is ours, guarded as everywhere, so nothing hangs.
"""

from __future__ import annotations

import re

from polaris.reward.leaves import Algebra
from polaris.reward.nodes import Leaf
from polaris.reward.number import read_number
from polaris.reward.screen import refusal
from polaris.reward.spelling import respell

_WHOLE_TEXT = re.compile(r"\\text\{(.+?)\}")
_UNITS = re.compile(
    r"(?:degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)(?:e?s)?(?: *\^[0-9]+)?", re.IGNORECASE
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_INTEGER = re.compile(r"-?\d+")
_QUOTIENT = re.compile(r"-?\d+\.?/0*[1-9]\d*\.?")
_ASKED_NOT = re.compile(r"\^\{|\^\(|\^\d+\^|\^\d\d+")
_WORDS_THAT_ARE_NO_UNKNOWNS = re.compile(r"\\?(?:sqrt|frac)")


def equal(gold: str, answer: str, algebra: Algebra) -> bool | None:
    """True, False, or None where only algebra could tell and `algebra` did not."""
    if cleaned(gold) == cleaned(answer):
        return True
    given, truth = plain(answer), plain(gold)
    if given == truth:
        return True
    if not given:
        return False
    given_items, true_items = _items(given), _items(truth)
    if len(given_items) != len(true_items) or (len(true_items) > 1 and (given[0], given[-1]) != (truth[0], truth[-1])):
        return False
    found = [_same_item(true, item, algebra) for true, item in zip(true_items, given_items, strict=True)]
    return False if False in found else None if None in found else True


def cleaned(text: str) -> str:
    """MATH's clean-up: without units, percent and dollar signs, degrees, `\\left`, spaces and a short `name =`; `a/b` as `\\frac{a}{b}`."""
    text = text.strip()
    if whole := _WHOLE_TEXT.fullmatch(text):
        text = whole[1]
    text = re.sub(r"\\!|\\left|\\right|\^\{\\circ\}|\^\\circ|\\\$|\\?%|\n", "", text.replace("\\\\", "\\"))
    text = text.replace("tfrac", "frac").replace("dfrac", "frac").split("\\text{ ")[0]
    text = re.sub(r"(^|[ {])\.(?=\d)", r"\g<1>0.", text)
    name, sign, value = text.partition("=")
    if sign and len(name) <= 2 and "=" not in value:
        text = value
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\w)\{", r"\\frac{\1}{", text)
    text = "\\frac{1}{2}" if text == "0.5" else text
    return re.sub(r"(-?\d+)/(-?\d+)", r"\\frac{\1}{\2}", text) if re.fullmatch(r"-?\d+/-?\d+", text) else text


def plain(text: str) -> str:
    """PRM800K's clean-up: LaTeX as plain symbols, without units, thousands separators, signs of money and percent, spaces and braces."""
    text = text.strip()
    if whole := _WHOLE_TEXT.fullmatch(text):
        text = whole[1]
    text = re.sub(r"\\?%|\\?\$", "", text).replace(" or ", " , ").replace(" and ", " , ")
    for word, zeros in (("million", 6), ("billion", 9), ("trillion", 12)):
        text = text.replace(word, f"*10^{zeros}")
    text = re.sub(r"\^ *\\circ", "", _UNITS.sub("", text))
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.replace(",\\!", "")
    if re.fullmatch(r"-?\d+\.0*", text):
        text = text.partition(".")[0]
    text = respell(text) if "\\" in text else text
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    text, before = re.sub(r"[pbvBV]matrix", "matrix", text), ""
    while text != before:
        before = text
        text = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", _slash, text))
    text = text.replace("\\cdot", "*").replace("\\infty", "inf").replace("\\pi", "pi").replace("\\sqrt", "sqrt").replace("\\", "")
    text = re.sub(r"[{}\s]", "", text.replace("- ", "-")).lower()
    whole_number = text.replace(",", "")
    return whole_number if re.fullmatch(r"-?\d+", whole_number) and _THOUSANDS.sub("", text) == whole_number else text


def _slash(found: re.Match[str]) -> str:
    top, bottom = (part if re.fullmatch(r"\w+", part) else f"({part})" for part in found.groups())
    return f"{top}/{bottom}"


def _items(text: str) -> list[str]:
    """Items of a tuple or interval; a thousands separator separates none."""
    text = _THOUSANDS.sub("", text)
    bracketed = len(text) > 2 and text[0] in "([" and text[-1] in ")]" and not any(c in "()[]" for c in text[1:-1])
    return [item.strip() for item in text[1:-1].split(",")] if bracketed else [text]


def _same_item(truth: str, given: str, algebra: Algebra) -> bool | None:
    if truth == given:
        return True
    if _QUOTIENT.fullmatch(truth) and _QUOTIENT.fullmatch(given):
        return False
    if bool(_INTEGER.fullmatch(truth)) != bool(_INTEGER.fullmatch(given)):
        return False
    numbers = read_number(truth), read_number(given)
    if numbers[0] and numbers[1]:
        return numbers[0].value == numbers[1].value
    unknowns = set(re.findall(r"[a-z]", _WORDS_THAT_ARE_NO_UNKNOWNS.sub("", f"{truth}{given}")))
    if len(unknowns) > 2 or _ASKED_NOT.search(f"{truth} {given}"):
        return False
    left, right = _latex(truth), _latex(given)
    # The clean-up may have built text that the screen has not seen.
    return False if refusal(left) or refusal(right) else algebra(Leaf(left), Leaf(right))


def _latex(text: str) -> str:
    return re.sub(r"sqrt\(([^()]*)\)", r"\\sqrt{\1}", text).replace("pi", "\\pi ").replace("inf", "\\infty ").replace("*", "\\cdot ")
