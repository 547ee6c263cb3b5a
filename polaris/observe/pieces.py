"""Which characters of a decoded text each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"
_LONGEST_RUN = 64
"""Tokens without a whole character that are decoded together; in a longer run they are garbage."""


def token_chars(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], text: str) -> tuple[int, ...] | None:
    """Number of characters of `text` that each token adds; they sum to its length. `text` is `tokens` without special tokens.

    Where a character is split over several tokens, the last of them adds it and the others add 0, as special tokens do. None if the
    tokenizer decodes a token differently on its own than within the text, so that nothing can be said.
    """
    kinds = list(dict.fromkeys(tokens))
    alone = dict(zip(kinds, tokenizer.batch_decode([[kind] for kind in kinds], skip_special_tokens=True), strict=True))
    pieces: list[str] = []
    start = 0
    for end, token in enumerate(tokens, start=1):
        if _INCOMPLETE in alone[token]:
            (whole,) = tokenizer.batch_decode([list(tokens[start:end])], skip_special_tokens=True)
            is_open = whole.endswith(_INCOMPLETE) and end - start < _LONGEST_RUN and end < len(tokens) and _INCOMPLETE in alone[tokens[end]]
            pieces.append("" if is_open else whole)
            start = start if is_open else end
        else:
            pieces.append(alone[token])
            start = end
    return tuple(map(len, pieces)) if "".join(pieces) == text else None
