import numpy as np
import pytest

from polaris.algorithm.lengths import BUCKETS, length_buckets


def test_buckets_are_shares_of_the_limit_and_hold_every_response_once():
    lengths = np.array([0, 1, 100, 101, 799, 800, 800])
    correct = np.array([False, True, True, False, True, False, True])
    clipped = np.array([False, False, False, False, False, True, True])
    assert length_buckets(lengths, correct, clipped, 800) == {
        "limit": 800,
        "bucket_1/responses": 3, "bucket_1/accuracy": pytest.approx(2 / 3), "bucket_1/clip_ratio": 0.0,
        "bucket_2/responses": 1, "bucket_2/accuracy": 0.0, "bucket_2/clip_ratio": 0.0,
        **{f"bucket_{k}/responses": 0 for k in range(3, 8)},
        "bucket_8/responses": 3, "bucket_8/accuracy": pytest.approx(2 / 3), "bucket_8/clip_ratio": pytest.approx(2 / 3),
    }  # fmt: skip


@pytest.mark.parametrize("limit", [1, 3, 8, 97, 98_304])
def test_the_longest_response_is_in_the_last_bucket_whatever_the_limit(limit):
    lengths = np.arange(1, limit + 1, max(1, limit // 50), dtype=np.int32)
    lengths[-1] = limit
    none = np.zeros(len(lengths), bool)
    facts = length_buckets(lengths, none, none, limit)
    counted = [facts[f"bucket_{k}/responses"] for k in range(1, BUCKETS + 1)]
    assert sum(counted) == len(lengths)
    assert counted[-1] >= 1
    for k, size in enumerate(counted, start=1):
        assert size == sum((k - 1) * limit < length * BUCKETS <= k * limit for length in lengths.tolist())
