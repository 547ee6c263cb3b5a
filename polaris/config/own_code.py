"""The fields of a configuration that may name a user's own code (`polaris.doors`): texts, tuples of texts, or tables with such keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from polaris.doors import is_own

DOOR = {"door": True}
"""Metadata of such a field."""
Option = bool | int | float | str | list
"""An argument of such code, or of a task of reasoning-gym, as a table of options holds it; a list may be one of tables."""

Section = TypeVar("Section")


def with_names(section: Section, change: Callable[[str], str]) -> Section:
    """The section, or a whole configuration, with every text in such fields changed."""
    assert is_dataclass(section)
    changed = {}
    for field in fields(section):
        value = getattr(section, field.name)
        if field.metadata.get("door"):
            changed[field.name] = _each(value, change)
        elif is_dataclass(value):
            changed[field.name] = with_names(value, change)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            changed[field.name] = tuple(with_names(item, change) for item in value)
    return replace(section, **changed)  # type: ignore[type-var]


def own_code(config: Any) -> dict[str, list[str]]:
    """`section.key` -> the names of a user's own code that it holds."""
    return {key: names for key, names in ((key, [*filter(is_own, found)]) for key, found in _texts(config, "")) if names}


def _texts(section: Any, prefix: str) -> Iterator[tuple[str, list[str]]]:
    for field in fields(section):
        value, found = getattr(section, field.name), list[str]()
        if field.metadata.get("door"):
            _each(value, lambda name, found=found: found.append(name) or name)  # type: ignore[misc]
            yield f"{prefix}{field.name}", found
        elif is_dataclass(value):
            yield from _texts(value, f"{prefix}{field.name}.")
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            for index, item in enumerate(value):
                yield from _texts(item, f"{prefix}{field.name}.{index}.")


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_each(item, change) for item in value)
    if isinstance(value, dict):
        return {_each(key, change): item for key, item in value.items()}
    return change(value) if isinstance(value, str) else value
