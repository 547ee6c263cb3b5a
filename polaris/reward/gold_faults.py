"""Finding gold answers whose text no response can equal: damaged LaTeX, placeholders, addresses, sentences."""

from __future__ import annotations

import re

from polaris.reward.alternatives import unpacked
from polaris.reward.backslashes import backslash_fault
from polaris.reward.brackets import balanced

# Words that may be an answer (none, undefined, unknown, empty, impossible, no solution) are no placeholders, nor are names of points (NAN).
_PLACEHOLDER = re.compile(
    r"(?:the )?(?:proof|solution|answer|result)(?: (?:is )?(?:omitted|below|above|follows|not (?:found|given|available|provided)))?"
    r"|proved|proven|q\.? ?e\.? ?d|\\qed|\\blacksquare|omitted|missing|(?:not|none)[ _-]?(?:found|given|available|provided|applicable)"
    r"|no answer(?: (?:found|given|available|provided))?|n/a|(?-i:nan|NaN)|null|todo|error|answers? (?:may |will )?var(?:y|ies)"
    r"|(?:see|refer to) (?:the )?(?:proof|solution|answer|explanation|above|below|figure|diagram|graph|image|picture|text|notes?)"
    r"(?: (?:above|below))?",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"https?://|!\[[^\]]*\]\(|</[a-z]+>|<(?:br|img)\b[^>]*>", re.IGNORECASE)
_QUOTED_ITEMS = re.compile(r"(?:array\()?(?:[\[({]\s*'[^']*'|\[\s*\"[^\"]*\")\s*(?:[,\])}'\"]|$)")
_ESCAPED = re.compile(r"\\[\\{}]")
_WRAPPED = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|emph)\s*\{([^{}]*)\}")
_MATHEMATICS = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\[A-Za-z]+(?:\{[^{}]*\})*|\S*[\d=^_+*/<>{}\\]\S*", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_STARTS_WITH_WORD = re.compile(r"[A-Za-z]{2}|[AI] ")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|been|has|have|had|cannot|can|must|will|would|should|could|might|does|do|exists?|holds?|follows?|prove[sdn]?"
    r"|shows?|shown|gives?|satisf(?:y|ies)|contains?|equals?|becomes?|implies|means|needs?|takes?|lies?|intersects?|(?:con|di)verges?)\b"
)
_OPENING = re.compile(
    r"(?:The|This|That|These|There|It|We|Since|Because|By|If|Let|Thus|Hence|So|Therefore|Both|Each|Every|Such|Yes|No|For|When)\b"
)
_ANSWER_IN_WORDS = re.compile(
    r"\bno (?:such |real |integer |positive |rational |other )*(?:solutions?|answers?|numbers?|integers?|values?)\b|\bdoes not exist\b"
    r"|\bno such (?:[a-z]+ )?[a-z]+ exists?\b|\binfinitely many\b"
    r"|\b(?:cannot|can't|can not) be determined\b|\bnot enough information\b|\bimpossible\b|\bundefined\b",
    re.IGNORECASE,
)
_SHORT, _LONG, _PROSE = 4, 6, 10


def text_fault(text: str) -> str | None:
    """Why no response can equal this gold text, in a few words; None if one may. Does not check `is_sentence`."""
    if found := backslash_fault(text):
        return found
    if _PLACEHOLDER.fullmatch(_bare(text)):
        return "a placeholder, not an answer"
    if _ADDRESS.search(text):
        return "a web address, a picture or HTML"
    if not balanced(_ESCAPED.sub("", text)):  # a box closes with the first brace that has no partner
        return "braces that do not match, as no box can hold them"
    if isinstance(unpacked(text.strip()), list | dict):
        return "JSON that is no list of answers"
    return "items in quotes that are no JSON list" if _QUOTED_ITEMS.match(text.strip()) else None


def is_sentence(text: str) -> bool:
    """Whether the text, or a part that ends like a sentence, is a statement in words, which no response would repeat exactly.

    Words outside of formulas count: six with a verb among them; four that begin as sentences do ("The", "There", "We", ...) or from
    a capital to a full stop; ten of those without a verb that is known. A part that begins with a formula (`x = 2k, where k is ...`)
    is an answer with a condition, and short answers in words ("The limit does not exist") stay answers.
    """
    return any(_states(part.strip()) for part in _SENTENCE_END.split(_WRAPPED.sub(r" \1 ", text)))


def _states(part: str) -> bool:
    words = len(_WORD.findall(_MATHEMATICS.sub(" 1 ", part)))
    if words < _SHORT or not _STARTS_WITH_WORD.match(part):
        return False
    whole = part[0].isupper() and part.endswith((".", "!"))
    if not _VERB.search(part):
        return whole and words >= _PROSE
    if _ANSWER_IN_WORDS.search(part) and words <= _PROSE:
        return False
    return words >= _LONG or whole or bool(_OPENING.match(part))


def _bare(text: str) -> str:
    """Without `\\text{}`, brackets, quotes and a full stop around it; white space single."""
    return " ".join(_WRAPPED.sub(r" \1 ", text).replace("$", " ").split()).strip("()[]{}<>\"'`*.:-_ ")
