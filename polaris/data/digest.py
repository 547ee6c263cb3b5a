"""What tells two prompt sets apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from polaris.types import Prompt


def digest(prompts: Sequence[Prompt]) -> str:
    """32 hexadecimal digits that differ if an id, a token or a ground truth of the prompts or their order does."""
    return fingerprint((prompt.id, prompt.tokens, prompt.ground_truth) for prompt in prompts)


def fingerprint(values: Iterable[object]) -> str:
    """32 hexadecimal digits that differ if a value, as `repr` shows it, or the order of the values does."""
    state = blake2b(digest_size=16)
    for value in values:
        state.update(repr(value).encode())
    return state.hexdigest()
