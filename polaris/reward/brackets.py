"""Brackets of a text: splitting outside them, and checking that they match."""

from __future__ import annotations

import re

THOUSANDS = re.compile(r"(?<![\d.])[+-]?\$?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!\d)")


def split(text: str, separator: str) -> list[str]:
    """Parts between separators outside all brackets; commas inside numbers stay."""
    kept = {index for number in THOUSANDS.finditer(text) for index in range(*number.span())} if separator == "," else set()
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        depth += _step(text, index)
        if depth == 0 and index not in kept and text.startswith(separator, index):
            parts.append(text[start:index].strip())
            index += len(separator)
            start = index
            continue
        index += 1
    return [*parts, text[start:].strip()]


def split_all(text: str, pattern: re.Pattern[str]) -> list[str]:
    parts, start = [], 0
    for match in pattern.finditer(text):
        if depth_is_zero(text, match.start()):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _step(text: str, index: int) -> int:
    """Change of depth at a character; intervals open and close with either bracket, so all kinds count alike."""
    return (text[index] in "([{") - (text[index] in ")]}")


def depth_is_zero(text: str, end: int) -> bool:
    return sum(_step(text, index) for index in range(end)) == 0


def encloses(text: str, opening: str, closing: str) -> bool:
    """Whether the first bracket is closed by the last."""
    depth = 0
    for index in range(len(text)):
        depth += _step(text, index)
        if depth == 0 and index < len(text) - 1 and index >= len(opening) - 1:
            return False
    return depth == 0


def balanced(text: str) -> bool:
    """Whether every brace has a partner, in the right order."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
