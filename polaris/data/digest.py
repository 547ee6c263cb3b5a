"""Digests that tell two prompt sets apart, and that hold a part of a set out."""

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


def held_out(text: str, fraction: float, seed: int) -> bool:
    """Whether a text is in the `fraction` of a set that is held out: by its hash and the seed, whatever else the set holds."""
    state = blake2b(f"{seed}/held out/{text}".encode(errors="replace"), digest_size=8)
    return int.from_bytes(state.digest(), "big") < fraction * 2**64
