"""A tiny reasoning model with its task, so that every example runs without a download; it needs no other folder, and `data`, `run` and
`evaluation` resolve its names."""

from __future__ import annotations

from polaris.errors import Refused

_PREFIX = "embedded:"
FILES = {
    "model": "model",
    "train": "train.jsonl",
    "test": "test.jsonl",
    "untrained": "untrained",
    "demonstrations": "demonstrations.jsonl",
    "unseen-demonstrations": "unseen-demonstrations.jsonl",
}
"""Names and files: the base model with its problems, and what `configs/embedded-sft.toml` makes that model of."""


def resolve(name: str) -> str:
    """The local path behind `embedded:model`, `embedded:train` and so on (built on first use); any other name unchanged.

    Raises ValueError for any other `embedded:` name.
    """
    if not name.startswith(_PREFIX):
        return name
    part = name.removeprefix(_PREFIX)
    if part not in FILES:
        raise Refused(f"unknown name {name!r}; embedded names are {', '.join(_PREFIX + known for known in FILES)}")
    from polaris.embedded.build import build

    return str(build() / FILES[part])
