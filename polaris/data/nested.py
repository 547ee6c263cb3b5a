"""Columns that hold an object or chat messages as text, as files do that went through CSV or a JSON column."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_OBJECTS = re.compile(r"\s*(?:\[\s*)?\{\s*[\"']")


def nested(value: Any) -> Any:
    """The object, or list of objects, that a text spells in JSON or as Python prints it; every other value as it is."""
    if not isinstance(value, str) or not _OBJECTS.match(value):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value
