"""Results on disk and whether they still hold: one JSON object per file, written in one move, with what it depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polaris.errors import Refused
from polaris.files import write_atomically


@dataclass(frozen=True, slots=True)
class Result:
    """The result in the file `path`; it holds as long as each field of `depends_on` is what it was when the result was made.

    The file has these fields too, in its `settings` or beside them. A caller chooses by the method what happens where one has changed:
    `read` keeps the result, `read_if_valid` has it made again, `refuse_changes` stops. `remedy` is for a file that is gone or damaged.

    >>> Result(path, {"seed": 1}).write({"settings": {"seed": 1}, "temperature": 0.8})
    >>> Result(path, {"seed": 2}).read_if_valid("temperature") is None
    True
    """

    path: Path
    depends_on: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = "restore it, or delete it if its phase can run again: nothing was trained since"

    def read(self, *keys: str) -> dict[str, Any] | None:
        """The content, which has at least `keys`, whatever it depends on; None if the file is not there.

        Raises:
            Refused: the file is no such JSON object; somebody else wrote it.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Refused(f"{self.path} cannot be read ({error}); {self.remedy}") from error
        missing = [key for key in keys if key not in content] if isinstance(content, dict) else list(keys)
        if missing or not isinstance(content, dict) or not isinstance(content.get("settings", {}), dict):
            raise Refused(f"{self.path} is no JSON object{f' with {missing[0]!r}' if missing else ' of a phase'}; {self.remedy}")
        return content

    def read_existing(self, *keys: str) -> dict[str, Any]:
        """As `read`; raises `Refused` if the file is not there."""
        content = self.read(*keys)
        if content is None:
            raise Refused(f"{self.path} is gone; {self.remedy}")
        return content

    def read_if_valid(self, *keys: str) -> dict[str, Any] | None:
        """As `read`; None also if something has changed."""
        content = self.read(*keys)
        return None if content is None or self.changes(content) else content

    def changes(self, content: Mapping[str, Any]) -> str:
        """What the result depends on and differs in `content`, as `seed: 0 -> 1; rope.factor: 1.0 -> 2.0`; empty if nothing does."""
        found = {**content, **content.get("settings", {})}
        wanted = json.loads(json.dumps(self.depends_on))  # the file has lists in the place of tuples
        return "; ".join(differences({key: found.get(key) for key in wanted}, wanted))

    def refuse_changes(self, content: Mapping[str, Any]) -> None:
        """Raise `Refused`, with the remedy, if what the result depends on differs in `content`."""
        if changes := self.changes(content):
            raise Refused(f"{self.path} was measured with other settings ({changes}); give another --name, or move the file away")

    def write(self, content: Mapping[str, Any]) -> None:
        """Write what `read` gives back equal; numbers must be finite, and what the result depends on among the fields."""
        text = json.dumps(content, indent=2, allow_nan=False)
        assert not self.changes(json.loads(text)), self.path
        write_atomically(self.path, f"{text}\n".encode())


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Leaves, as `branch.leaf: old -> new`, in which two trees of settings differ, by name."""
    old, new = _flatten(before), _flatten(after)
    return [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
