"""Result files of the recipe's phases: one JSON object per file, written in one move."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from polaris.data.prompt import Prompt
from polaris.errors import Refused
from polaris.observe.files import write_atomically

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
    state = blake2b(digest_size=16)
    for prompt in prompts:
        state.update(repr((prompt.id, prompt.tokens, prompt.ground_truth)).encode())
    return state.hexdigest()


def check_settings(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise `ValueError` if what lies at `path` was measured with other settings."""
    changes = [f"{key}: {found.get(key)!r}, now {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if changes:
        raise Refused(f"{path} was measured with other settings ({'; '.join(changes)}); give another --name, or move the file away")
