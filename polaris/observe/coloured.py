"""A response as markup whose tokens are coloured by their probability under the engine that sampled them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from polaris.observe.markup import safe

LEVELS = ("90% or more", "50% to 90%", "10% to 50%", "1% to 10%", "below 1%")
"""Levels of probability; the first one has no colour."""
_EDGES = tuple(-math.log(edge) for edge in (0.9, 0.5, 0.1, 0.01))
MAX_CHARS = 40_000
"""A longer text loses its middle."""

Runs = list[tuple[int, int]]
"""(end, level): characters from the end of the run before up to `end` have this level."""


def level_runs(rollout: Mapping[str, Any]) -> Runs | None:
    """Levels of the response's characters; None where the rollout does not say which characters a token stands for.

    A character that several tokens make together has the level of the least probable of them.
    """
    logprobs, chars = rollout.get("logprobs"), rollout.get("token_chars")
    if not isinstance(logprobs, list) or not isinstance(chars, list) or len(logprobs) != len(chars):
        return None
    ends: Runs = []
    end = pending = 0
    for logprob, size in zip(logprobs, chars, strict=True):
        pending = max(pending, bisect_right(_EDGES, -logprob))
        end += size
        if size:
            ends.append((end, pending))
            pending = 0
    return [(list(run)[-1][0], level) for level, run in groupby(ends, key=lambda pair: pair[1])] if ends else []


def block(text: str, runs: Runs | None = None, start: int = 0) -> str:
    """`text` in a block of its own; `runs` are levels of the whole that it was cut out of at `start`."""
    if len(text) <= MAX_CHARS:
        return f"<pre>{_coloured(text, runs, start)}</pre>"
    half = MAX_CHARS // 2
    gap = f"\n[... {len(text) - 2 * half:,} characters left out ...]\n"
    return f"<pre>{_coloured(text[:half], runs, start)}{gap}{_coloured(text[-half:], runs, start + len(text) - half)}</pre>"


def _coloured(text: str, runs: Runs | None, start: int) -> str:
    if runs is None:
        return safe(text)
    parts, at, stop = [], start, start + len(text)
    for end, level in runs[bisect_right(runs, (start, len(LEVELS))) :]:
        piece = safe(text[at - start : end - start])
        parts.append(f"<i class=p{level}>{piece}</i>" if level else piece)
        at = min(end, stop)
        if at == stop:
            break
    return "".join(parts) + safe(text[at - start :])
