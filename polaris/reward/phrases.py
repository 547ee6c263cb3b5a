"""Removing words around an answer before its structure is read: `The answer is 5`, `(C) 7`, `x + c \\text{ for any constant } c`.

Each function takes `respell`ed text. Words that could change or negate a value ("not", "half of", "plus") stay, so that the text
equals nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from polaris.reward.units import CHANGING

_TEXT = re.compile(r"\\text\{([^{}]*)\}")

# Multiple choices: `Option C`, `(C) 7`, and what may not stand behind the letter, such as another one.
_OPTION = re.compile(r"(\\text\{)?(?:option|choice) ?\}?(?=(?-i:\(?[A-H](?![A-Za-z])))", re.IGNORECASE)
_CHOICES = (
    re.compile(r"(?:\\text\{\(?([A-H])[.:)]{1,2}\}|\(?\\text\{([A-H])\}[.:)]{1,2}|([A-H])[.:)])(?=[^\s+*/^_=!)])(.+)"),
    re.compile(r"\(([A-H])\)[.:]?(?=\d|\\(?:frac|sqrt|text))(.+)"),
    re.compile(r"\\text\{(?:\(([A-H])\)|([A-H])[.:)])[.:]? ?([^{}]+\}.*)"),
)
_BOLD_LETTER = re.compile(r"^\{(\([A-H]\)|[A-H][.:)])\}")
_ANOTHER = re.compile(
    r"\([A-H]\)|(?<![A-Za-z])[A-H][.:)]|(?:or|and|,)[ },]*(?:\\text\{ ?)?\(?[A-H](?![A-Za-z])"
    r"|^(?:\\text\{)?(?:or|and|not|but|is|if)\b"
)

# Sentences: a connective, a subject of which no word changes the value, a verb, the value.
_CONNECTIVE = re.compile(
    r"\s*(?:\\(?:therefore|Rightarrow)|therefore|thus|hence|so|then|finally|we (?:get|have|find|obtain)(?: that)?"
    r"|(?:approximately|approx\.?|about|roughly|around)(?: equal to)?|(?:exactly|precisely|only|just)(?= +[\d$\\])"
    r"|(?:the )?(?:final )?answer(?= +(?:[^A-Za-z\s:=]|[A-H](?![A-Za-z]))))(?![A-Za-z])[\s,:]*",
    re.IGNORECASE,
)
_VERB = re.compile(r"(?<![A-Za-z\\])(?:has|have|had|takes?|took|needs?|costs?|gets?|earns?|earned|paid|weighs|requires?)(?![A-Za-z])")
_COPULA = re.compile(
    r"(?<![A-Za-z\\])(?:is equal to|equals|is|are|will be|must be)"
    r"(?: (?:always|exactly|precisely|simply|just|indeed|therefore|thus|found to be|given by))?(?![A-Za-z]):?"
    r"|(?<=[A-Za-z]{3}):(?!\d)|(?<=[A-Za-z]{3} ):"
)
_SUBJECT = re.compile(r"(?:[A-Za-z ,'()+]|\\(?:angle|triangle|theta|alpha|beta|gamma|lambda|omega|phi)(?![A-Za-z]))+(?:_[A-Za-z0-9])?")
_VALUE_OF = re.compile(r"(?:(?:the )?(?:value|solution)s? (?:of|for) )?([A-Za-z](?:_[A-Za-z0-9])?|\\[a-z]+)", re.IGNORECASE)
_EVERY = re.compile(
    r"\s*(?:(?:for )?(?:all|any|every) +|\\forall *)(?:reals? +|real numbers? +)?(?=[A-Za-z] *(?:[<>]|\\(?:le|ge|ne)(?![a-z])))",
    re.IGNORECASE,
)
_IS_ANSWER = re.compile(
    r"(?:the |our |my )?(?:only )?(?:final |correct |right )?(?:answer|value|solution|result|option|choice|one)\.?|correct\.?",
    re.IGNORECASE,
)
# What may be said of a value that stands before it, and the verb that may end there.
_ABOUT_VALUE = re.compile(r"(?:left(?: over)?|remaining|needed|required|possible|there|used|in (?:total|all)|altogether)\.?", re.IGNORECASE)
_REMAINS = re.compile(r"(?<![A-Za-z\\])(?:remain(?:s|ed)?|only|exactly) *\.? *$")
_NONE_SUCH = re.compile(r"no (?:[a-z]+ )?(?:solutions?|roots?|values?|numbers?|integers?|points?|limit)(?: exists?)?\.?", re.IGNORECASE)
_CHANGE = re.compile(
    r"(?:(?P<subject>.*?)(?<![A-Za-z\\]))?(?P<change>increase|decrease|rise|drop|gain|loss|profit|discount|reduction)[sd]?"
    r"(?: of| by) +(?=[\d$\\])",
    re.IGNORECASE,
)
# "The function is even": nothing but its kind is named, so that the answer is the property.
_PROPERTY_OF = re.compile(
    r"(?:it|this|(?:the|this|that) "
    r"(?:function|statement|claim|series|sequence|number|triangle|quadrilateral|set|matrix|relation|graph|system)"
    r"(?: [A-Za-z](?:\([a-z]\))?)?)",
    re.IGNORECASE,
)
_PROPERTY = re.compile(r"(?:an? )?[A-Za-z-]+(?: [A-Za-z-]+)?\.?")
_REPLY = re.compile(r"\s*(yes|no|true|false) *[,.;:!] *(?=\S)", re.IGNORECASE)
_NOT_ONE_REPLY = re.compile(r"\b(?:yes|no|true|false|or|but|if|unless|except|maybe|perhaps|sometimes|however)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|never|neither|cannot|none)\b|n't\b", re.IGNORECASE)
_TAKEN_BACK = CHANGING - {
    "all", "each", "every", "any", "some", "to", "for", "from", "at", "least", "most", "where", "when", "between", "by", "both", "so",
    "then", "only", "through", "positive", "is", "are", "base", "root", "power", "other",
} | {
    "never", "cannot", "could", "might", "may", "should", "would", "guess", "squared", "cubed", "logarithm", "nor", "because", "since",
    "prove", "show",
}  # fmt: skip
_WORDS = re.compile(r"[A-Za-z' ]{2,}[.!]?|[A-Za-z']+(?:,? [A-Za-z']+){3,}[.!]?")
_ANSWER = re.compile(r"answer|value|solution|result|option|choice|^ans$", re.IGNORECASE)
_FUNCTION_OF = re.compile(r"(?:square|cube|cosine|sine|tangent|log) (?:of|root)|n't\b", re.IGNORECASE)

_ABOUT = r"(?:approximately|approx\.?|about|roughly)(?: equal to)?"
_IN_WORDS = re.compile(rf"(?<=[\w}})\]]) ?[,(]? ?\\text\{{[,( ]*(?:or |which is |that is )?{_ABOUT} ?(?:\}}|([\d.,]+) ?\)?\}})\)?")
_OR_IN_BRACKETS = re.compile(r"(?<=[\w}%)]) ?(?:\\text\{ ?\(or ?\}|\(\\text\{ ?or ?\}|\(or )([^()]+)\)$")
_IN_BRACKETS = re.compile(r"\((\\approx(?![a-z])[^()]*)\)$")

# Clauses: `x \in Z`, `for any constant c`, `where k is an integer`, `(n \ge 1)`, behind a formula; the first two also before it.
_SYMBOL = r"(?:[A-Za-z]|\\(?:alpha|beta|gamma|lambda|mu|theta|phi|omega)(?![a-z]))(?:_[A-Za-z0-9])?"
_TOKEN = re.compile(rf"\\text\{{[^{{}}]*\}}|\\(?!alpha|beta|gamma|lambda|mu|theta|phi|omega)[a-z]+|{_SYMBOL}|.", re.DOTALL)
_SYMBOLS = rf"(?<![A-Za-z\\])(?P<symbols>{_SYMBOL}(?:(?: *, *| +and +){_SYMBOL})*)"
_EACH = r"(?:(?:all|any|every|each|some|an?) +)?"
_KIND = (
    r"(?P<kind>(?:(?:an?|any|some|arbitrary|fixed|real|complex|rational|positive|non-?negative|natural|whole|integers?|numbers?|constants?|reals"
    r"|parameters?)(?![A-Za-z]) *)+)"
)
_SET = r"(?P<set>\{?[ZNQRC]\}?(?:[\^_](?:[*+]|\{[*+]\}|\{\\cdot ?\}|\\cdot ?))?|\(-\\infty,\\infty\)|\\\{[^{}]*\\\})"
_BOUND = (
    rf"(?P<relation>(?:[-\d]+ *(?:<|\\le) *)?(?<![A-Za-z\\])(?P<symbols>{_SYMBOL}) *"
    r"(?:(?:[<>]|\\le|\\ge|\\ne)(?![A-Za-z])[^<>=,;()]+|=[ \d,]+\\ldots ?))"
)
_LEAD = r"(?:(?:where|with|for|here|when)(?![A-Za-z])|\\forall(?![A-Za-z])) *"
_CLAUSES = tuple(
    re.compile(rf"[ ,;:(]*{body}[ .)]*$")
    for body in (
        rf"(?:{_LEAD}|(?<=[,;:(])|(?<=[,;:(] )){_EACH}(?:{_KIND})?{_SYMBOLS} *\\in *{_SET}",
        rf"{_LEAD}{_EACH}(?:{_KIND})?{_SYMBOLS}",
        rf"(?:{_LEAD}|(?<=[,;( ])){_SYMBOLS} +(?:is|are|being) +{_KIND}",
        rf"(?:{_LEAD}{_EACH}|(?<=[(,])){_BOUND}",
    )
)
_BEFORE = re.compile(rf" *{_LEAD}{_EACH}(?:{_KIND})?{_SYMBOLS}(?: *\\in *{_SET})? *[,:] *(?=.)", re.IGNORECASE)
_SETS = {"Z": "integer", "N": "natural", "Q": "rational", "R": "real", "C": "complex"}
_COUNTING = {re.compile(r"[nm](?:\\ge1|>0|=1,2.*)"): "counting", re.compile(r"[nm](?:\\ge0|=0,1.*)"): "natural"}
_FUNCTION_VALUE = re.compile(r"[A-Za-z](?:\([A-Za-z]\)|_(?:n|\{n[^{}]*\}))=")
_RELATIONS = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")


class Clause(NamedTuple):
    """`rest` holds for all `symbols` of a kind ("" for any), or, where `kind` is None, for those that satisfy `condition`."""

    rest: str
    symbols: tuple[str, ...]
    kind: str | None
    condition: str


def choice(text: str) -> tuple[str, str] | None:
    """The letter of a multiple choice and what stands behind it; one choice, not several."""
    text = _BOLD_LETTER.sub(r"\1", text)
    for pattern in _CHOICES:
        if found := pattern.fullmatch(text):
            *letters, value = found.groups()
            value = f"\\text{{{value}" if pattern is _CHOICES[2] else value
            return None if _ANOTHER.search(value) else (next(filter(None, letters)), value)
    return None


def reply(text: str) -> tuple[str, str] | None:
    """`Yes, the answer is 5` as the word and the rest, which must not negate or qualify it."""
    flat = _flat(text)
    found = _REPLY.match(flat)
    if not found or _NOT_ONE_REPLY.search(flat, found.end()):
        return None
    word = found[1].lower()
    return None if word in ("yes", "true") and _NEGATION.search(flat, found.end()) else (word, _behind(text, found.end()))


def statement(text: str) -> str | None:
    """The value that a short sentence states: `5` of `The answer is 5`, `x=5` of `x \\text{ equals } 5`, `C` of `Option C`."""
    if option := _OPTION.match(text):
        return _behind(text, option.end())
    flat = _flat(text)
    if (connective := _CONNECTIVE.match(flat)) and connective.end() < len(text):
        return _behind(text, connective.end())
    if every := _EVERY.match(flat):
        return _behind(text, every.end())
    if (change := _CHANGE.match(flat)) and _says_all((change["subject"] or "").strip() or "the"):
        return f"{_behind(text, change.end())}\\text{{ {change['change']}}}"
    if remains := _REMAINS.search(flat):
        return _before(text, remains.start())
    copula = _COPULA.search(flat) or _VERB.search(flat)
    if not copula:
        return None
    subject, predicate = (" ".join(part.split()) for part in (flat[: copula.start()], flat[copula.end() :]))
    if _IS_ANSWER.fullmatch(predicate) or (subject and _ABOUT_VALUE.fullmatch(predicate)):
        return _before(text, copula.start())
    value = _behind(text, copula.end())
    if (_PROPERTY_OF.fullmatch(subject) and _PROPERTY.fullmatch(predicate)) or (_says_all(subject) and _NONE_SUCH.fullmatch(predicate)):
        return value
    if not value or not _says_all(subject) or (_WORDS.fullmatch(predicate) and not _ANSWER.search(subject)):
        return None
    if (symbol := _VALUE_OF.fullmatch(subject)) and not _VERB.fullmatch(copula[0]):
        return f"{symbol[1]}={value}"
    return value if re.search("[A-Za-z]{2}", subject) else None


def _says_all(subject: str) -> bool:
    """Whether the words before a value keep it: "half of the answer" and "it is not true that" do not."""
    words = {word for word in re.findall(r"[a-z]+", subject.lower()) if word != subject}
    return bool(_SUBJECT.fullmatch(subject)) and not _FUNCTION_OF.search(subject) and _TAKEN_BACK.isdisjoint(words)


def clause(text: str) -> Clause | None:
    """A formula with the clause, before or behind it, that gives the values of its symbols for which it holds."""
    flat = _flat(text)
    if (found := _BEFORE.match(flat)) and (begun := _clause(found, _behind(text, found.end()), "")):
        return begun
    for pattern in _CLAUSES:
        if (found := pattern.search(flat)) and found.start():
            rest = _before(text, found.start()).rstrip(" ,;:")
            return _clause(found, rest, flat[found.start() : found.end()])
    return None


def approximated(text: str) -> str:
    """`\\sqrt{2} \\text{ (approximately } 1.41)` and `\\sqrt{2}(\\approx 1.41)` as `\\sqrt{2}\\approx 1.41`; "(or 50%)" bare."""
    text = _OR_IN_BRACKETS.sub(r"\\text{or}\1", text)
    text, changed = _IN_WORDS.subn(lambda found: f"\\approx {found[1] or ''}", text)
    if changed and text.count(")") > text.count("("):
        text = text.removesuffix(")")
    return _IN_BRACKETS.sub(r"\1", text) if not text.startswith("(\\approx") else text


def renamed(text: str, old: Sequence[str], new: Sequence[str]) -> str | None:
    """The text with renamed symbols; None if a new name has another meaning in it."""
    names = {name: f"{other} " if other.startswith("\\") else other for name, other in zip(old, new, strict=True)}
    tokens = _TOKEN.findall(text)
    if any(name in tokens and name not in old for name in new):
        return None
    return "".join(names.get(token, token) for token in tokens)


def _clause(found: re.Match[str], rest: str, whole: str) -> Clause | None:
    """The clause; None if the rest lacks its symbols, or if a condition would apply to a list of them."""
    groups = found.groupdict()
    symbols = tuple(re.findall(_SYMBOL, groups["symbols"]))
    condition = groups.get("relation") or ""
    members = groups.get("set") or ""
    tokens = _TOKEN.findall(rest)
    if not rest or rest.count("(") != rest.count(")") or any(symbol not in tokens for symbol in symbols):
        return None
    if condition and (_RELATIONS.search(rest) or (whole.startswith(",") and "=" in rest and not _FUNCTION_VALUE.match(rest))):
        return None
    if members.startswith("\\{"):
        return Clause(rest, symbols, None, members)
    if members:
        return Clause(rest, symbols, _set_kind(members), "")
    if condition:
        kind = next((kind for pattern, kind in _COUNTING.items() if pattern.fullmatch(condition.replace(" ", ""))), None)
        return Clause(rest, symbols, kind, "" if kind else condition)
    return Clause(rest, symbols, _words_kind(groups.get("kind") or ""), "")


def _set_kind(members: str) -> str:
    letter = next((letter for letter in members if letter in _SETS), "R")
    narrowed = any(mark in members for mark in ("*", "+", "\\cdot")) and not members.startswith("(")
    return ("counting" if letter in "NZ" else f"positive {_SETS[letter]}") if narrowed else _SETS[letter]


def _words_kind(words: str) -> str:
    if "integer" in words or "whole" in words or "natural" in words:
        return "counting" if "positive" in words else "natural" if not ("integer" in words and "negative" not in words) else "integer"
    kind = next((kind for kind in _SETS.values() if kind in words), "")
    return f"positive {kind or 'real'}" if "positive" in words else kind


def _flat(text: str) -> str:
    """The text with spaces for `\\text{` and its brace, so that every character keeps its place."""
    return _TEXT.sub(lambda found: f"      {found[1]} ", text)


def _inside(text: str, place: int) -> bool:
    """Whether a place is within a `\\text{...}`."""
    return text.rfind("\\text{", 0, place) > text.rfind("}", 0, place)


def _before(text: str, place: int) -> str:
    return (text[:place].rstrip() + ("}" if _inside(text, place) else "")).replace("\\text{}", "").strip()


def _behind(text: str, place: int) -> str:
    return (("\\text{" if _inside(text, place) else "") + text[place:].lstrip()).replace("\\text{}", "").strip()
