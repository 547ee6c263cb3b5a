"""The options of `polaris train` that are no fields of the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from polaris.errors import Refused


def start_options(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options as fields of `polaris.checkpoint.branch.Start`, and all other arguments."""
    flags: dict[str, Any] = {"fresh": False, "change": False, "with_optimizer": False, "source": ""}
    words, rest = list(arguments), []
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name == "--from":
            flags["source"] = value if equals or not words else words.pop(0)
            if not flags["source"] or flags["source"].startswith("-"):
                raise Refused("--from has no value; write --from RUN or --from RUN@step-40")
        elif name in ("--fresh", "--change", "--with-optimizer"):
            if equals:
                raise Refused(f"{name} takes no value; write {name} alone, or leave it out")
            flags[name[2:].replace("-", "_")] = name != "--fresh" or is_first_attempt()
        else:
            rest.append(name + equals + value)
    return flags, rest


def is_first_attempt() -> bool:
    """False where torchrun has started its ranks again: they resume."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def source_of(given: Path | None, quickstart: Path, overrides: list[str]) -> str:
    """The file that the configuration was read from, in words."""
    if given is not None:
        return str(given)
    own = {word.partition("=")[0] for word in overrides} & {"--model.path", "--data.path"}
    unsuited = "; its other settings suit its own tiny model and problems: docs/own_model.md shows a CONFIG for yours" if own else ""
    return f"{quickstart}, the built-in quickstart, since no CONFIG is given{unsuited}"
