"""Problem texts in the forms that are compared between sets: without the appended instruction, as words, as one key."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

INSTRUCTION = "Let's think step by step and output the final answer within \\boxed{}."
"""The recipe's sets append this. It is removed even if a set is too small to show it."""
LEAST_INSTRUCTION_WORDS = 4
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{(?:align|equation|gather|eqnarray|aligned|gathered|split)\*?\}|[_^]\{\s*\}|\\\\|&")
_DRESS = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|text|textbf|textit|mathrm|mathbf|mbox|quad|qquad)(?![A-Za-z])"
    r"|\\[,;:! ()\[\]]|[$~]"
)
_SPELLINGS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[cl]dots(?![A-Za-z])"), r"\\dots"),
    (_ENVIRONMENT, " "),
    (_DRESS, " "),
    (re.compile(r"\{\s*(\w)\s*\}"), r" \1"),
)
_PUNCTUATION = re.compile(r"[.,;:?](?!\d)")
_WORD = re.compile(r"[^\W\d_]+|\d+")


def without_instruction(texts: Sequence[str]) -> list[str]:
    """The texts without the words that at least half of them begin or end with (four or more), and without the recipe's instruction.

    A text that consists of nothing else is left alone. White space becomes single spaces.
    """
    split = [_without_known(text.split()) for text in texts]
    first, last = len(_shared_start(split)), len(_shared_start([words[::-1] for words in split]))
    prefix = Counter(tuple(words[:first]) for words in split).most_common(1)[0][0] if split and first else ()
    suffix = Counter(tuple(words[-last:]) for words in split).most_common(1)[0][0] if split and last else ()
    return [" ".join(_strip(_strip(words, prefix, at_start=True), suffix, at_start=False)) for words in split]


def words_of(text: str) -> list[str]:
    """Runs of letters and runs of digits, case folded: `$3x^2$` gives 3, x, 2. LaTeX for looks only is left out."""
    return _WORD.findall(_undressed(text))


def exact_key(text: str) -> str:
    """The text without case, white space, LaTeX for looks, and punctuation outside numbers; equal keys mean the same problem."""
    return _PUNCTUATION.sub("", "".join(_undressed(text).split())) or text


def _undressed(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return text.casefold()


def _shared_start(texts: list[list[str]]) -> list[str]:
    """The longest start that at least half of the texts have; [] if it has under four words, or fewer than four texts have it."""
    least, remaining = max(4, len(texts) / 2), texts
    shared: list[str] = []
    while True:
        counts = Counter(words[len(shared)] for words in remaining if len(words) > len(shared))
        word, count = counts.most_common(1)[0] if counts else ("", 0)
        if count < least:
            return shared if len(shared) >= LEAST_INSTRUCTION_WORDS else []
        remaining = [words for words in remaining if len(words) > len(shared) and words[len(shared)] == word]
        shared.append(word)


def _without_known(words: list[str]) -> list[str]:
    return _strip(words, tuple(INSTRUCTION.split()), at_start=False)


def _strip(words: list[str], part: Sequence[str], *, at_start: bool) -> list[str]:
    size = len(part)
    found = words[:size] if at_start else words[len(words) - size :]
    if not size or len(words) <= size or tuple(found) != tuple(part):
        return words
    return words[size:] if at_start else words[:-size]
