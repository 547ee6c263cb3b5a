"""Gold answers with LaTeX that was escaped too little or too much when a file was written.

`\\frac` in the quotes of JSON, Python or a shell is a form feed and `rac`, `\\times` a tab and `imes`; no response can equal that.
"""

from __future__ import annotations

import re

from polaris.escapes import TAB_OF_MACRO

_NAMES = {
    "\0": "a zero character",
    "\a": "a bell",
    "\b": "a backspace",
    "\t": "a tab",
    "\n": "a line break",
    "\v": "a vertical tab",
    "\f": "a form feed",
    "\r": "a carriage return",
}
# White space is legal in an answer, but before these it was the `\n` of `\neq` or the `\r` of `\right`.
_LINE = "eq|eg|abla|ot|otin|mid|leq|geq|exists|parallel|subseteq|earrow|warrow|ewline|olimits|u(?=[_^])|e(?= ?-?\\d)"
_RETURN = "ight|ightarrow|angle|brace|brack|ceil|floor|vert|ho|m(?= )"
_CUT_MACRO = re.compile(
    rf"{TAB_OF_MACRO}|\n(?:{_LINE})(?![A-Za-z])|\r(?:{_RETURN})(?![A-Za-z])|[\v\f](?=[A-Za-z])|[\x00-\x08\x0e-\x1f\x7f]"
    r"|\\x[01][0-9a-f]|\\u00[01][0-9a-f]"
)
# The only break of a line, before a u: `\nu`, but for an equation of u behind another equation, or the next row of a table.
_CUT_NU = re.compile(r"(?![^\n]*=[^\n]*\nu *=)[^\n]*(?<![\\;,])\nu(?![A-Za-z])[^\n]*")
_BARE_MACRO = re.compile(
    r"(?<![A-Za-z\\])(?:[dt]?frac|rac|text(?:bf|it|rm)?|ext(?:bf|it|rm)?|boxed|oxed|mathrm|athrm|begin|egin|end|sqrt|qrt|overline|verline"
    r"|binom|inom)\{"
)
_TWICE = re.compile(
    r"(?<!\\)\\\\(?:(?:[dt]?frac|sqrt|text|mathrm|boxed|overline|binom|begin|end)\{|(?:left|right|times|cdot|infty)(?![A-Za-z]))"
)


def backslash_fault(text: str) -> str | None:
    """What is wrong with the backslashes of a gold answer, in a few words; None if nothing is.

    A form feed before `rac{1}{2}`, a tab before `imes 10`; `rac{1}{2}` or `frac{1}{2}`, which have lost the backslash; and
    `\\\\frac{1}{2}`, which has two.
    """
    if _CUT_NU.fullmatch(text):
        return "a line break where LaTeX has a backslash"
    if found := _CUT_MACRO.search(text):
        return f"{_NAMES.get(found[0][0], 'a control character')} where LaTeX has a backslash"
    if _BARE_MACRO.search(text):
        return "a LaTeX macro without its backslash"
    return "a LaTeX macro with two backslashes" if _TWICE.search(text) else None
