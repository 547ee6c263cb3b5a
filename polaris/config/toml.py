"""A TOML file as tables; what people write for TOML that is none is answered with the line and what to write instead."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polaris.config.names import shown
from polaris.errors import Refused
from polaris.escapes import TAB_OF_MACRO

_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f]|{TAB_OF_MACRO}")
_CURLY = "\u201c\u201d\u2018\u2019"
_BARE = re.compile(rf"[^\W\d]|[/~.]+[^\W\d]|[{_CURLY}]")
_BACKSLASH = "a backslash in double quotes is written twice (\"\\\\boxed{}\"), or the text stands in single quotes ('\\boxed{}')"


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables.

    Raises:
        Refused: it is no TOML, naming the line; or a text holds a control character, as `"\\boxed"` does, whose `\\b` is one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not valid TOML: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise Refused(_explained(path, text, str(error))) from None
    for name, value in _texts(values):
        if _CONTROL.search(value):
            raise Refused(f"{path}: {name} = {shown(value)} holds a control character; {_BACKSLASH}")
    return values


def _explained(path: Path, text: str, error: str) -> str:
    if not (place := _LINE.search(error)):
        return f"{path} is not valid TOML: {error}"
    line = text.split("\n")[int(place[1]) - 1].strip()
    return f"{path}, line {place[1]}: `{line[:60]}` is not valid TOML; {_instead(line) or error[: place.start()].strip()}"


def _instead(line: str) -> str:
    """What to write for the line; "" where the parser's own words must do."""
    key, equals, value = (part.strip() for part in line.partition(" #")[0].partition("="))
    if not equals:
        return "" if line.startswith("[") else "each line is `name = value` or a [section]"
    if value.lower() in ("true", "false"):
        return f"write {key} = {value.lower()}"
    if value.lower() in ("none", "null"):
        return "leave the line out, which takes the default"
    if re.fullmatch(r"[+-]?\.\d+", value):
        return f"write {key} = {value.replace('.', '0.')}"
    if value.startswith('"') and "\\" in value:
        return _BACKSLASH
    if _BARE.match(value) and '"' not in value:
        return f'text wants straight quotes: {key} = "{value.strip(_CURLY)}"'
    return 'text in a list wants quotes: ["a", "b"]' if re.match(r"\[\s*[^\W\d]", value) else ""


def _texts(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of all texts in the tables."""
    if isinstance(values, str):
        yield name, values
    elif isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _texts(value, f"{name}.{key}" if name else str(key))
