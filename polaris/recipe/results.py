"""Result files of the recipe's phases: one JSON object per file, written in one move."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from polaris.config.schema import RunConfig
from polaris.errors import Refused
from polaris.files import write_atomically
from polaris.types import Prompt

_REMEDY = "restore it, or delete it if its phase can run again: nothing was trained since"


def read_result(path: Path, *keys: str) -> dict[str, Any] | None:
    """What `write_result` wrote to `path`, which holds at least `keys`; None if it never did.

    Raises:
        ValueError: the file is no JSON object; somebody else wrote it.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refused(f"{path} is no valid JSON ({error}); {_REMEDY}") from error
    missing = [key for key in keys if key not in result] if isinstance(result, dict) else list(keys)
    if missing or not isinstance(result, dict):
        raise Refused(f"{path} is no JSON object{f' with {missing[0]!r}' if missing else ''}; {_REMEDY}")
    return result


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result that `read_result` gives back equal; numbers must be finite."""
    write_atomically(path, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())


def digest(prompts: Sequence[Prompt]) -> str:
    """32 hexadecimal digits that differ if an id, a token or a ground truth of the prompts or their order does."""
    return fingerprint((prompt.id, prompt.tokens, prompt.ground_truth) for prompt in prompts)


def fingerprint(values: Iterable[object]) -> str:
    """32 hexadecimal digits that differ if a value, as `repr` shows it, or the order of the values does."""
    state = blake2b(digest_size=16)
    for value in values:
        state.update(repr(value).encode())
    return state.hexdigest()


def model_settings(config: RunConfig) -> dict[str, Any]:
    """Which model is sampled from, and how its numbers are computed; not which weights it has at present."""
    return {"model": config.model.path, "revision": config.model.revision, "dtype": config.model.dtype, "rope": asdict(config.rope)}


def changed(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The values of `wanted` that `found` does not have, in words; empty if it has them all."""
    return "; ".join(f"{key}: {found.get(key)!r}, now {value!r}" for key, value in wanted.items() if found.get(key) != value)


def check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `ValueError` if what lies at `path` was measured with other settings."""
    if changes := changed(found, wanted):
        raise Refused(f"{path} was measured with other settings ({changes}); give another --name, or move the file away")
