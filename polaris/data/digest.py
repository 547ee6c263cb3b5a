"""Digests that tell two prompt sets apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from polaris.types import Prompt


def digest(prompts: Sequence[Prompt]) -> str:
    """32 hexadecimal digits of the ids, tokens and ground truths of the prompts, in their order."""
    return fingerprint((prompt.id, prompt.tokens, prompt.ground_truth) for prompt in prompts)


def fingerprint(values: Iterable[object]) -> str:
    """32 hexadecimal digits of the values as `repr` shows them, in their order."""
    state = blake2b(digest_size=16)
    for value in values:
        state.update(repr(value).encode())
    return state.hexdigest()
