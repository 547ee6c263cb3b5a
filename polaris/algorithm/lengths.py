"""Response lengths as a share of the limit: how many responses end where, and how good they are."""

from __future__ import annotations

import numpy as np

BUCKETS = 8


def length_buckets(lengths: np.ndarray, correct: np.ndarray, clipped: np.ndarray, limit: int) -> dict[str, float]:
    """Facts about N responses of `lengths` [N] tokens, at most `limit`; `correct` and `clipped` (cut off at the limit) are [N] bool.

    Bucket k = 1 .. 8 holds the lengths above (k - 1) / 8 and up to k / 8 of the limit, and an empty response is in bucket 1, so that
    stages with different limits have the same buckets. `limit` is among the facts; each bucket has `bucket_k/responses` (a count)
    and, unless that is 0, `bucket_k/accuracy` and `bucket_k/clip_ratio` (shares of its responses).
    """
    assert lengths.max(initial=0) <= limit
    bucket = np.maximum(1, -(-lengths.astype(np.int64) * BUCKETS // limit))
    facts: dict[str, float] = {"limit": limit}
    for k in range(1, BUCKETS + 1):
        inside = bucket == k
        facts[f"bucket_{k}/responses"] = int(inside.sum())
        if inside.any():
            facts[f"bucket_{k}/accuracy"] = float(correct[inside].mean())
            facts[f"bucket_{k}/clip_ratio"] = float(clipped[inside].mean())
    return facts
