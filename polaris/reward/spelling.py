"""One spelling for answers that differ only in dress: Unicode and LaTeX variants, spacing, delimiters, missing braces.

Nothing here knows what an answer means, and nothing is evaluated. Every expression is linear in the text's length.
"""

from __future__ import annotations

import re
import unicodedata

_FRACTIONS = {c: unicodedata.normalize("NFKC", c).split("\u2044") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_CHARACTERS = str.maketrans(
    {c: f"\\frac{{{a}}}{{{b}}}" for c, (a, b) in _FRACTIONS.items()}
    | {c: f"^{{{unicodedata.normalize('NFKC', c)}}}" for c in "⁰¹²³⁴⁵⁶⁷⁸⁹"}
    | {c: f"_{{{unicodedata.normalize('NFKC', c)}}}" for c in "₀₁₂₃₄₅₆₇₈₉"}
    | dict.fromkeys("−–—‐‑﹣－", "-")
    | {"×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "/", "⁄": "/", "∕": "/", "∶": ":", "√": "\\sqrt ", "π": "\\pi ", "∞": "\\infty "}
    | {"≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "±": "\\pm ", "≈": "\\approx ", "∅": "\\emptyset "}
    | {"°": "^\\circ ", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "\\ldots ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta "}
)
_MACROS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom", "tbinom": "\\binom", "leq": "\\le ", "geq": "\\ge ",
    "leqslant": "\\le ", "geqslant": "\\ge ", "neq": "\\ne ", "lt": "<", "gt": ">", "times": "\\cdot ", "ast": "\\cdot ", "div": "/",
    "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "dots": "\\ldots ", "cdots": "\\ldots ", "degree": "^\\circ ", "colon": ":", "ratio": ":", "varnothing": "\\emptyset ", "lor": " or ",
    "land": " and ", "vee": " or ", "wedge": " and ", "to": "\\to ", "infinity": "\\infty ", "ln": "\\ln ", "exp": "\\exp ",
}  # fmt: skip
_SILENT = frozenset(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle textstyle scriptstyle limits nolimits "
    "quad qquad hspace boldsymbol mathbf mathbb mathcal mathsf bf rm it sf displaylimits ensuremath mathop mathord phantom "
    "vspace hfill newline noindent thinspace enspace kern".split()
)
_TEXT_MACROS = frozenset("text mbox textbf textit textrm textsf texttt mathrm mathit operatorname hbox textnormal emph".split())
_MACRO = re.compile(r"\\([A-Za-z]+)\*?|\\([^A-Za-z])")
_SYMBOLS = {"%": "%", "$": "$", "{": "\\{", "}": "\\}", "|": "|", "&": "&", "_": "_", "\\": "\\\\", "#": "#"}
_LETTER = re.compile(r"\\text\s*\{\s*([a-z])\s*\}")
_FRAC = re.compile(r"\\frac\s*(?:\{\s*([0-9A-Za-z])\s*\}|([0-9A-Za-z]))\s*(?:([0-9A-Za-z])|(?=\{))|\\frac(\{[^{}]*\})\s*([0-9A-Za-z])")
_ROOT = re.compile(r"\\sqrt\s*([0-9A-Za-z])|\\sqrt\s+(?=\\)")
_THIN = re.compile(r"(?<=[0-9])\s*\{?,\}?\s*\\!\s*(?=[0-9]{3})|(?<=[0-9])\{,\}(?=[0-9]{3})")
_SPACES = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")
_WRAPPINGS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_WHOLE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)


def respell(text: str) -> str:
    """The text in one spelling: `\\dfrac12` as `\\frac{1}{2}`, `\\text{ and }` as `\\text{ and }`, `½` as `\\frac{1}{2}`, no spacing macros."""
    text = unwrap(unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS))
    text = _THIN.sub(",", text)
    text = _MACRO.sub(_spell_macro, text).replace("~", " ")
    text = _LETTER.sub(r"\1", text)
    text = _FRAC.sub(_brace_fraction, text)
    text = _ROOT.sub(lambda found: f"\\sqrt{{{found[1]}}}" if found[1] else "\\sqrt", text)
    return tighten(unwrap(text))


def tighten(text: str) -> str:
    """Without white space, except for one between two words or numbers."""
    return _SPACES.sub("", " ".join(text.split()))


def unwrap(text: str) -> str:
    """Without the `$`, `\\(` or box around it and a full stop behind it."""
    before = None
    while text != before:
        before = text
        text = text.strip()
        if text.endswith((".", ";")) and not text.endswith("\\;"):
            text = text[:-1]
        for start, end in _WRAPPINGS:
            inner = text[len(start) : -len(end)]
            if len(text) > len(start) + len(end) and text.startswith(start) and text.endswith(end) and start not in inner:
                text = inner
        if (box := _WHOLE_BOX.fullmatch(text)) and _balanced(box[1]):
            text = box[1]
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def _spell_macro(found: re.Match[str]) -> str:
    name, symbol = found[1], found[2]
    if name is None:
        return _SYMBOLS.get(symbol, " " if symbol in ",;: \t\n" else "" if symbol in "!()[]" else found[0])
    if name in _SILENT:
        return " "
    if name in _TEXT_MACROS:
        return "\\text"
    return _MACROS.get(name, f"\\{name} ")


def _brace_fraction(found: re.Match[str]) -> str:
    if found[4]:
        return f"\\frac{found[4]}{{{found[5]}}}"
    numerator = found[1] or found[2]
    return f"\\frac{{{numerator}}}" + (f"{{{found[3]}}}" if found[3] else "")
