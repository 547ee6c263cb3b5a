"""One spelling for answers that differ only in looks: Unicode and LaTeX variants, spacing, delimiters, missing braces.

The meaning of an answer plays no role, and nothing is evaluated. Callers keep the text short (`screen.MAX_CHARS`).
"""

from __future__ import annotations

import re
import unicodedata

from polaris.reward.brackets import balanced

_FRACTIONS = {c: unicodedata.normalize("NFKC", c).split("\u2044") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}


def _letter(greek: str) -> str:
    """The name of its macro: `Delta`, `lambda`."""
    name = unicodedata.name(greek).split()[-1].lower().replace("lamda", "lambda")
    return name.capitalize() if greek.isupper() else name


# Escapes where a character looks like another: dashes, slashes, primes, quotes, and the signs for times, ratio, union and element.
_CHARACTERS = str.maketrans(
    {c: f"\\frac{{{a}}}{{{b}}}" for c, (a, b) in _FRACTIONS.items()}
    | dict.fromkeys("\u2212\u2013\u2014\u2010", "-")
    | dict.fromkeys("\u2044\u2215\u00f7", "/")
    | dict.fromkeys("\u2032\u2018\u2019", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | {"\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u2236": ":", "\u00b0": "^\\circ ", "\u2026": "\\ldots "}
    | {"\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ", "√": "\\sqrt ", "∞": "\\infty ", "∅": "\\emptyset ", "±": "\\pm "}
    | {"\u2228": "\\vee ", "\u2227": "\\wedge ", "\u2200": "\\forall ", "\u2234": "\\therefore ", "≃": "\\approx ", "≒": "\\approx "}
    | {chr(0x245F + number): f"{number}," for number in range(1, 21)}  # in circles, often several without a comma
    | {"≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "→": "\\to ", "∠": "\\angle ", "△": "\\triangle ", "\u3001": ","}
    | {"∛": "\\sqrt[3]", "¬": "\\neg ", "¢": "\\text{ cents}", "\u2205": "\\emptyset ", "⇔": "\\Leftrightarrow ", "⇒": "\\Rightarrow "}
    | {c: f"\\mathbb{{{unicodedata.normalize('NFKC', c)}}}" for c in "\u211d\u2124\u2115\u211a\u2102"}
    | {c: f"\\{_letter(c)} " for c in (*map(chr, range(0x3B1, 0x3CA)), *"ΓΔΘΛΞΠΣΦΨΩ") if c not in "\u03bf\u03c2"}
)
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_LOWERED = re.compile("[\u2080-\u2089]+")
_MACROS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom", "tbinom": "\\binom", "leq": "\\le ", "geq": "\\ge ",
    "leqslant": "\\le ", "geqslant": "\\ge ", "neq": "\\ne ", "lt": "<", "gt": ">", "times": "\\cdot ", "ast": "\\cdot ", "div": "/",
    "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|",
    "vert": "|", "mid": "|", "dots": "\\ldots ", "cdots": "\\ldots ", "degree": "^\\circ ", "colon": ":", "ratio": ":",
    "varnothing": "\\emptyset ", "lg": "\\log_{10}",
    "nicefrac": "\\frac", "sfrac": "\\frac", "flatfrac": "\\frac", "approxeq": "\\approx ", "simeq": "\\approx ", "doteq": "\\approx ",
    "tg": "\\tan ", "ctg": "\\cot ", "cotg": "\\cot ", "arctg": "\\arctan ", "arcctg": "\\arccot ", "prime": "'",
    "R": "(-\\infty,\\infty)", "imath": "i", "jmath": "j", "iff": "\\Leftrightarrow ", "implies": "\\Rightarrow ", "lnot": "\\neg ",
    "rightarrow": "\\to ", "backslash": "\\setminus ", "smallsetminus": "\\setminus ", "bigcup": "\\cup ", "bigcap": "\\cap ",
    "lor": " or ", "land": " and ", "vee": " or ", "wedge": " and ",
    "infinity": "\\infty ",
}  # fmt: skip
_SILENT = frozenset({
    "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl", "Biggr", "middle",
    "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "displaylimits", "quad", "qquad", "boldsymbol", "mathbf", "mathbb",
    "mathcal", "mathsf", "bf", "rm", "it", "sf", "ensuremath", "mathop", "mathord", "hfill", "newline", "noindent", "thinspace", "enspace",
    "kern", "underline", "bm", "pmb", "scriptscriptstyle", "tiny", "scriptsize", "footnotesize", "small", "normalsize", "large", "Large",
    "LARGE", "huge", "Huge", "bigm", "Bigm", "biggm", "Biggm", "mathrel", "mathbin", "mathopen", "mathclose", "mathinner", "mathpunct",
    "strut", "mathstrut", "smash", "nonumber", "notag", "allowbreak", "nobreak", "null", "par",
})  # fmt: skip
_TEXT_MACROS = frozenset({
    "text", "mbox", "textbf", "textit", "textrm", "textsf", "texttt", "mathrm", "mathit", "operatorname", "hbox", "textnormal", "emph",
})  # fmt: skip
_GAP_OF_EQUATIONS = re.compile(r"(?<=[\w})])\s*\\q?quad(?![A-Za-z])\s*(?=[A-Za-z](?:_\{?\w\}?)?\s*=)")
_SPACE_MACRO = re.compile(r"(?<!\\)\\(?=\s|$)")
_UNSEEN = re.compile(r"\\(?:[hv]space|[hv]?phantom|color|textcolor|label|tag)\*?\s*\{[^{}]*\}")
_BODY = r"[^()\[\],;]*(?:\([^()]*\)[^()\[\],;]*)*"
_INTERVAL = re.compile(
    rf"(?:(?:^|(?<=[=,;({{ ])|(?<=\\in)|(?<=\\cup)|(?<=\\cap)|(?<=or\}})|(?<=and\}}))\]|(?<!sqrt)[\[(])({_BODY})[,;]({_BODY})[\[\])]"
)
_OPENING, _CLOSING = {"[": "["}, {"]": "]"}
_FOREIGN_PAIR = re.compile(r"([\[\](])(-?\d+(?:,\d+)?);(-?\d+(?:,\d+)?)([)\[\]])")
_SEMICOLONS = re.compile(r"(?<=[\[\](])([^()\[\],]*;[^()\[\],]*)(?=[)\[\]])")
_NOTHING_AT_ALL = re.compile(r"\\(?:left|right)\s*\.")
_FOREIGN_CURRENCY = re.compile("([€£¥₹]) ?(\\d[\\d,.]*)|(?<=\\d) ?([€£¥₹])")
_CURRENCIES = {"€": "euro", "£": "gbp", "¥": "yen", "₹": "rupees"}
_OVER = re.compile(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}")
_PRIMES = re.compile(r"\^\s*(?:\{\s*('+)\s*\}|('+))")
_SYSTEM_NAMES = "cases|dcases|rcases|equation|eqnarray|aligned|align|alignedat|gathered|gather|split"
_SYSTEM = re.compile(
    rf"(?:\\\{{\s*)?\\begin\s*\{{({_SYSTEM_NAMES})\*?\}}(.*?)\\end\s*\{{\1\*?\}}(?:\s*\\\}})?"
    r"|\\\{\s*\\begin\s*\{(array|matrix)\}(.*?)\\end\s*\{\3\}(?:\s*\\\})?",
    re.DOTALL,
)
_COLUMNS = re.compile(r"\A\s*(?:\[[a-z]\]|\{[lcr|@\d\s]*\})")
_BETWEEN_SYSTEMS = re.compile(r"(\\end\{cases\}\})\s*(?=\{\\begin)")
_STARS = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*(-?\d+|[A-Za-z]|\([^()]*\))")
_GLUED_QUAD = re.compile(r"q?quad([a-zA-Z]+)")
_REALS = re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R(?![A-Za-z]))")
_MACRO = re.compile(r"\\([A-Za-z]+)\*?|\\([^A-Za-z])")
_SYMBOLS = {"%": "%", "$": "$", "{": "\\{", "}": "\\}", "|": "|", "&": " and ", "_": "_", "\\": "\\\\", "#": "#"}
_FUNCTIONS = r"(?:arc)?(?:sin|cos|tan|cot|csc)h?|arcsec|ln|log|lg|exp|gcd|(?:arc)?c?tg"
_FUNCTION = re.compile(
    rf"(?<![\\A-Za-z])({_FUNCTIONS})(?=\(|\^|_[\d{{]|\s*\\[a-z]|\s+[a-z\d](?![A-Za-z]))|\\text\s*\{{\s*({_FUNCTIONS})\s*\}}"
)
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])\\?sqrt\s*\(((?:[^()]|\([^()]*\))*)\)")
_PLAIN_ABSOLUTE = re.compile(r"(?<![\\A-Za-z])abs\s*\(([^()]*)\)")
_PLAIN_CONSTANT = re.compile(r"(?<![A-Za-z\\])(pi|infty)(?![A-Za-z])")
_DOLLAR = re.compile(r"(?<!\\)\$")
_NATURAL = re.compile(r"\\log\s*_\s*(?:e(?![A-Za-z])|\{\s*e\s*\})")
_CHOOSE = re.compile(r"\{([^{}]+)\\choose\s*([^{}]+)\}")
# n below and k above; two small digits are more often the power of a constant.
_COMBINATIONS = re.compile(
    r"(?:(?<![A-Za-z\\])C|\\text\s*\{\s*C\s*\})_(?:\{((?![12]\})[a-z0-9+-]+)\}|([3-9a-z]))\s*\^\s*(?:\{([a-z0-9+-]+)\}|([a-z0-9]))"
)
_COMBINATIONS_IN_FRONT = re.compile(r"(?:\{\})?[_^](?:\{(\w+)\}|(\w)) *(?:\\text *\{ *C *\}|C)_(?:\{(\w+)\}|(\w))")
_MODULO = re.compile(
    r"\\pmod\s*(?:\{([^{}]*)\}|(\w))|\(\s*(?:\\[bp]?mod(?![a-z])|mod(?=\s)|\\text\s*\{\s*mod\s*\})\s*(?:\{([^{}]*)\}|([^{}()]+?))\s*\)"
)
_UPRIGHT_LETTER = re.compile(r"\\text\s+([A-Za-z])(?![A-Za-z])")
_TEXT_SYMBOL = re.compile(r"\\text\s*\{(?:\s*([ei$%])\s*|(\d[\d.,]*))\}|(^|[=(,+\-{])\\text\s*\{\s*([a-z])\s*\}")
_BARE = r"[0-9A-Za-z]|\\(?:pi|theta|alpha|beta|gamma|lambda|omega|phi)(?![A-Za-z])"
_FRAC = re.compile(
    rf"\\frac\s*(?:\{{\s*([0-9A-Za-z])\s*\}}|({_BARE}))\s*(?:({_BARE})|(?=\{{))"
    rf"|\\frac\s*(\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}})\s*({_BARE})"
)
_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9A-Za-z])|\\sqrt\s+(?=\\)")
_NOT_EQUAL = re.compile(r"\\not\s*=|(?<=\s)!=")
_ANGLE = r"\([^()]*\)|\\frac *\{[^{}]*\} *\{[^{}]*\}|\d+ *(?:\^(?:\\circ|\{\\circ *\})|\\pi)?|\\pi(?: */ *\d+)?"
_CIS = re.compile(rf"(?:\\text *\{{ *cis *\}}|(?<![A-Za-z\\])cis(?![A-Za-z])) *({_ANGLE})")
_VECTOR = re.compile(r"\\(?:(?:vec|overrightarrow) *(?:\{ *([a-z]) *\}|([a-z])(?![A-Za-z]))|hat *(?:\{ *([ijk]) *\}|([ijk])(?![A-Za-z])))")
# Without LaTeX, what stands behind `^` is a number; with it, `x^10` is the first power of x, times 0.
_PLAIN_EXPONENT = re.compile(r"(?<=[\w)])\^(-\d+|\d{2,})")
_EXPONENT_IN_BRACKETS = re.compile(r"\^ *\(([^(){}]*(?:\([^(){}]*\)[^(){}]*)*)\)")
_IN_BRACES = re.compile(r"\\(max|min|gcd|lcm) *\\\{([^{}]*)\\\}")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|pmb|mathsf)\s*\{\s*([A-Za-z])\s*\}")
_MODULUS = re.compile(r"\\b?mod(?![a-z]) *\{?(\w+)\}?|(?<![A-Za-z\\{])mod +(\d+)")
_DIFFERENTIAL = re.compile(r"\{d(\^\{?\d\}?)? ([A-Za-z])")
_WORD = r"\\text\s*\{\s*([A-Za-z0-9]+)\s*\}"
_WORD_INDEX = re.compile(rf"_\s*(?:\{{\s*{_WORD}\s*\}}|{_WORD}|\{{\s*\\(max|min)\s*\}}|\\(max|min)(?![A-Za-z]))")
_INDEX = re.compile(r"_\{([0-9A-Za-z])\}(?![0-9A-Za-z])")
_SPLIT_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\s*\d{3})*,\s+000(?:,\s*\d{3})*(?![\d,])")
_QUOTED_THOUSANDS = re.compile(r"(?<![\w.,'])[1-9]\d{0,2}(?:'\d{3})+(?![\d'])")
_DOTTED_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.])")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])0\{,\}(?=\d)|(?<=\d)\{,\}(?=\d{1,2}(?!\d)|\d{4})")
_THIN = re.compile(r"(?<=[0-9])\s*\{?,\}?\s*\\!\s*(?=[0-9]{3})|(?<=[0-9])\{,\}(?=[0-9]{3})")
# A space behind a comma and before three digits says that they are a number of their own.
_SPACES = re.compile(r"(?<![0-9A-Za-z])\s+(?![0-9]{3}(?![0-9]))|(?<![0-9A-Za-z,])\s+|\s+(?![0-9A-Za-z])")
_WRAPPINGS = (("**", "**"), ('"', '"'), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_WHOLE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)


def respell(text: str) -> str:
    """The text in one spelling: `\\dfrac12` as `\\frac{1}{2}`, `\\mbox{ cm}` as `\\text{ cm}`, `½` as `\\frac{1}{2}`, no spacing macros."""
    text = _FOREIGN_CURRENCY.sub(
        lambda found: f"{found[2] or ''}\\text{{ {_CURRENCIES[found[1] or found[3]]}}}", text.strip().removeprefix("####")
    )
    text = _PLAIN_EXPONENT.sub(r"^{\1}", text) if "\\" not in text else text
    text = _STARS.sub(r"^{\1}", text)
    text = _RAISED.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = _LOWERED.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)
    if len(_DOLLAR.findall(text)) % 2 == 0:  # else one of them means money
        text = _DOLLAR.sub(" ", text)
    text = _GAP_OF_EQUATIONS.sub(", ", text)
    text = unwrap(_CHOOSE.sub(r"\\binom{\1}{\2}", _OVER.sub(r"\\frac{\1}{\2}", _SPACE_MACRO.sub(" ", _NOT_EQUAL.sub(r"\\ne ", text)))))
    text = _numerals(_BOLD.sub(r" \1", _REALS.sub(r"(-\\infty,\\infty)", _UNSEEN.sub("", _NOTHING_AT_ALL.sub(" ", text)))))
    text = _spell_functions(_MACRO.sub(_spell_macro, text).replace("~", " "))
    text = _TEXT_SYMBOL.sub(lambda found: "".join(part or "" for part in found.groups()), text)
    text = _IN_BRACES.sub(r"\\\1(\2)", _EXPONENT_IN_BRACKETS.sub(r"^{\1}", text))
    text = _systems(_brace_fractions(_PRIMES.sub(lambda found: found[1] or found[2], text)))
    text = _ROOT.sub(lambda found: f"\\sqrt{found[1] or ''}{{{found[2]}}}" if found[2] else "\\sqrt", text)
    text = _CIS.sub(r"(\\cos(\1)+i\\sin(\1))", text)
    text = _VECTOR.sub(lambda found: "".join(part or "" for part in found.groups()), text)
    text = _WORD_INDEX.sub(lambda found: f"_{{{''.join(part or '' for part in found.groups())}}}", text)
    return _intervals(_DIFFERENTIAL.sub(r"{d\1\2", tighten(unwrap(_INDEX.sub(r"_\1", text)))))


def _numerals(text: str) -> str:
    """Separators of thousands as commas, a decimal comma that cannot be one of them as a point."""
    text = _QUOTED_THOUSANDS.sub(lambda found: found[0].replace("'", ","), text)
    text = _SPLIT_THOUSANDS.sub(lambda found: re.sub(r"\s", "", found[0]), text)
    text = _DOTTED_THOUSANDS.sub(lambda found: found[0].replace(".", ","), text)
    return _THIN.sub(",", _DECIMAL_COMMA.sub(lambda found: f"{found[0][:-3]}.", text))


def _intervals(text: str) -> str:
    """`]a; b[` as `(a,b)`; a comma in a number is a decimal one where a semicolon stands between the two."""
    text = _SEMICOLONS.sub(lambda found: found[1].replace(";", ","), _FOREIGN_PAIR.sub(_foreign_pair, text))
    return _INTERVAL.sub(lambda found: _OPENING.get(found[0][0], "(") + found[0][1:-1] + _CLOSING.get(found[0][-1], ")"), text)


def _foreign_pair(found: re.Match[str]) -> str:
    opening, left, right, closing = found.groups()
    # `[1,2; 3,4]` could be a matrix.
    decimal = ("," in left) != ("," in right) or left.startswith(("0,", "-0,"))
    return f"{opening}{left.replace(',', '.')},{right.replace(',', '.')}{closing}" if decimal else found[0]


def _systems(text: str) -> str:
    """Equations under one brace, or aligned, as `{\\begin{cases} ... \\end{cases}}`: the braces keep lists of systems apart."""
    text = _SYSTEM.sub(lambda found: f"{{\\begin{{cases}}{_COLUMNS.sub('', found[2] if found[1] else found[4])}\\end{{cases}}}}", text)
    return _BETWEEN_SYSTEMS.sub(r"\1;", text)


def tighten(text: str) -> str:
    """Without white space, except for one between two words or numbers."""
    return _SPACES.sub("", " ".join(text.split()))


def unwrap(text: str) -> str:
    """Without the `$`, `\\(`, braces or box around it and a full stop behind it."""
    before = None
    while text != before:
        before = text
        text = text.strip()
        if text.endswith((".", ";")) and not text.endswith(("\\;", "..")):
            text = text[:-1]
        for start, end in _WRAPPINGS:
            inner = text[len(start) : -len(end)]
            if len(text) > len(start) + len(end) and text.startswith(start) and text.endswith(end) and start not in inner:
                text = inner
        if (box := _WHOLE_BOX.fullmatch(text)) and balanced(box[1]):
            text = box[1]
        if len(text) > 2 and text[0] == "{" and text[-1] == "}" and text[-2] != "\\" and balanced(text[1:-1]):
            text = text[1:-1]
    return text


def _spell_macro(found: re.Match[str]) -> str:
    name, symbol = found[1], found[2]
    if name is None:
        return _SYMBOLS.get(symbol, " " if symbol in ",;: \t\n" else "" if symbol in "!()[]" else found[0])
    if name in _SILENT:
        return " "
    if quad := _GLUED_QUAD.fullmatch(name):
        return f" {quad[1]}"
    if name in _TEXT_MACROS:
        return "\\text"
    return _MACROS.get(name, f"\\{name} ")


def _spell_functions(text: str) -> str:
    """Names and symbols of functions: `sqrt(2)`, `\\operatorname{arctan} x`, `C_n^k`, `(mod 7)`, `\\mathrm e`."""
    text = _FUNCTION.sub(_spell_function, _UPRIGHT_LETTER.sub(r"\1", text))
    text = _PLAIN_CONSTANT.sub(r"\\\1 ", _PLAIN_ROOT.sub(r"\\sqrt{\1}", _PLAIN_ABSOLUTE.sub(r"|\1|", text)))
    text = _NATURAL.sub(r"\\ln ", text)
    text = _COMBINATIONS_IN_FRONT.sub(lambda found: f"\\binom{{{found[1] or found[2]}}}{{{found[3] or found[4]}}}", text)
    text = _COMBINATIONS.sub(lambda found: f"\\binom{{{found[1] or found[2]}}}{{{found[3] or found[4]}}}", text)
    text = _MODULO.sub(lambda found: f"\\pmod{{{''.join(part or '' for part in found.groups())}}}", text)
    return _MODULUS.sub(r"\\pmod{\1\2}", text) if "\\equiv" in text else text


def _spell_function(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    return _MACROS.get(name, f"\\{name} ")


def _brace_fractions(text: str) -> str:
    """From the outermost inwards; each pass leaves fewer arguments without braces."""
    before = None
    while text != before:
        before, text = text, _FRAC.sub(_brace_fraction, text)
    return text


def _brace_fraction(found: re.Match[str]) -> str:
    if found[4]:
        return f"\\frac{found[4]}{{{found[5]}}}"
    numerator = found[1] or found[2]
    return f"\\frac{{{numerator}}}" + (f"{{{found[3]}}}" if found[3] else "")
