"""Backslashes that were read as escapes: `\\times` in the quotes of JSON, Python, TOML or a shell is a tab and `imes`."""

from __future__ import annotations

_TAB = "ext|extbf|extit|extrm|extstyle|imes|heta|an|anh|au|riangle|riangleq|o|ilde|frac|binom|herefore|op"
TAB_OF_MACRO = rf"\t(?:{_TAB})(?![A-Za-z])"
"""A tab that was the `\\t` of a LaTeX macro, as a regular expression; other tabs may be meant."""
