"""A static check of an answer before any work that its writer could make endless.

The policy is rewarded for any text that the grader accepts, so every answer is hostile until it is short, shallow and spelled in the
alphabet of answers. Refused text never reaches a computer-algebra system, a regular expression that is not linear, or an
evaluator. The limits are far above real answers: the longest of MATH-500 has 159 characters.
"""

from __future__ import annotations

import math
import re

MAX_CHARS = 512
MAX_DEPTH = 12
MAX_DIGITS = 200
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 3_000

_DIGITS = re.compile(r"\d+")
_EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?\s*(\d+)")
_POWER_OF_GROUP = re.compile(r"[)}\]]\s*\^\s*\{?\s*[-+]?\s*(\d+)")
_POWER_IN_EXPONENT = re.compile(r"\^\s*\{?[^{}^]{0,80}?(\d+)\s*\^\s*\{?\s*[-+]?\s*(\d+)")
_FACTORIAL_IN_EXPONENT = re.compile(r"\^\s*\{?[^{}^]{0,80}?\d\d\)?\s*!")
_FACTORIAL = re.compile(r"(\d+)\s*!|\(([^(){}]{1,40})\)\s*!|[!)}\]]\s*!")
_SUM = re.compile(r"\s*[+-]?\s*\d*[A-Za-z]?\s*(?:[+-]\s*\d*[A-Za-z]?\s*)*")
_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{([^{}]*)\}|\\[dt]?binom|\\choose|[CPA]_\{?\s*(\d+)")
_ALLOWED = re.compile(r"[A-Za-z0-9\s+\-*/^_=<>()\[\]{}|\\.,;:!?'\"%$&~]*")
_FORBIDDEN_MACROS = frozenset({
    "input", "include", "def", "gdef", "edef", "xdef", "let", "newcommand", "renewcommand", "providecommand", "write", "read", "openin",
    "openout", "catcode", "csname", "immediate", "loop", "repeat", "expandafter", "futurelet", "afterassignment", "special", "usepackage",
    "documentclass", "verb", "url", "href",
})  # fmt: skip
_MACRO = re.compile(r"\\([A-Za-z]+)")
_CODE = re.compile(
    r"__|\*\*|(?<![\\A-Za-z])(?:import|exec|eval|lambda|getattr|globals|sympify)(?![A-Za-z])|(?:open|compile|Symbol)\s*\("
    r"|[A-Za-z_]\w*\s*\.\s*[A-Za-z_]\w*\s*\("
)


def refusal(text: str) -> str | None:
    """Why the text may not be parsed, in a few words; None if it may."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if not _ALLOWED.fullmatch(text):
        return "characters outside the alphabet of answers"
    if any(macro in _FORBIDDEN_MACROS for macro in _MACRO.findall(text)):
        return "a macro that programs"
    if _CODE.search(text):
        return "code"
    # A bar may open or close; the parser decides.
    if max(_depth(text), text.count("|") // 2) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    if any(len(digits) > MAX_DIGITS for digits in _DIGITS.findall(text)):
        return f"a number of more than {MAX_DIGITS} digits"
    return _large(text)


def _large(text: str) -> str | None:
    """Numbers that are short to write and endless to compute."""
    exponents = [int(power) for power in _EXPONENT.findall(text)]
    exponents.append(math.prod(max(1, int(power)) for power in _POWER_OF_GROUP.findall(text)))
    exponents += [int(base) ** min(int(power), 15) for base, power in _POWER_IN_EXPONENT.findall(text)]
    if max(exponents) > MAX_EXPONENT:
        return "an exponent that is too large"
    if _FACTORIAL_IN_EXPONENT.search(text):
        return "a factorial in an exponent"
    if any(_large_factorial(*factorial.groups()) for factorial in _FACTORIAL.finditer(text)):
        return "a factorial that is too large"
    for binomial in _BINOMIAL.finditer(text):
        digits = _DIGITS.findall((binomial[1] or "") + (binomial[2] or ""))
        if any(int(number) > MAX_FACTORIAL for number in digits) or "^" in (binomial[1] or ""):
            return "a binomial that is too large"
    return None


def _large_factorial(number: str | None, group: str | None) -> bool:
    """Whether `number!` or `(group)!` is, or may be; a group is small if it is a sum of small numbers and symbols."""
    if number is None and not (group and _SUM.fullmatch(group)):
        return True
    return any(int(digits) > MAX_FACTORIAL for digits in _DIGITS.findall(number or group or ""))


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest
