from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polaris.algorithm.groups import classify_groups, group_advantages

rewards_and_valid = st.tuples(arrays(np.float64, (3, 4), elements=st.sampled_from([0.0, 0.1, 0.5, 1.0])), arrays(np.bool_, (3, 4)))


def test_verl_numbers():
    # verl's compute_grpo_outcome_advantage: (r - torch.mean) / (torch.std + 1e-6) over a group
    rewards = torch.tensor([[1.0, 0, 0, 1, 1, 0, 0, 0], [0.2, 0.4, 0.4, 0.9, 1, 0, 0.3, 0.7]], dtype=torch.float64)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
    ours = group_advantages(rewards.numpy(), np.ones((2, 8), dtype=bool), "std")
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-12)


def test_trl_standard_deviation_with_samples_left_out():
    trl = pytest.importorskip("trl.trainer.utils")
    rewards = np.array([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.3]])
    valid = np.array([[True, True, False, True], [True, True, True, True]])
    masked = torch.from_numpy(np.where(valid, rewards, np.nan))
    centred = masked - masked.nanmean(1, keepdim=True)
    ours = group_advantages(rewards, valid, "std")
    np.testing.assert_allclose(ours[valid], (centred / (trl.nanstd(masked, dim=1)[:, None] + 1e-6)).numpy()[valid], rtol=1e-7)
    assert ours[0, 2] == 0
    np.testing.assert_allclose(group_advantages(rewards, valid, "none")[valid], centred.numpy()[valid], rtol=1e-12)


def test_what_is_not_valid_has_no_influence():
    valid = np.array([[True, True, True, False]])
    finite, nan = np.array([[1.0, 0.0, 0.0, 7.0]]), np.array([[1.0, 0.0, 0.0, np.nan]])
    np.testing.assert_array_equal(group_advantages(finite, valid, "std"), group_advantages(nan, valid, "std"))


@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_give_exactly_nothing(reward, scale):
    assert not group_advantages(np.full((1, 7), reward), np.ones((1, 7), dtype=bool), scale).any()


def test_a_lone_sample_has_no_advantage():
    valid = np.array([[True, False, False], [False, False, False]])
    assert not group_advantages(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), valid, "std").any()


def test_kinds_of_groups():
    rewards = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=np.float64)
    valid = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    kinds = classify_groups(rewards, valid)
    assert np.flatnonzero(kinds.all_wrong).tolist() == [0]
    assert np.flatnonzero(kinds.all_right).tolist() == [1, 4]
    assert np.flatnonzero(kinds.informative).tolist() == [2]
    assert np.flatnonzero(kinds.too_few).tolist() == [3, 5]


@given(rewards_and_valid)
def test_one_kind_each_and_a_gradient_for_the_informative_alone(case):
    rewards, valid = case
    kinds = classify_groups(rewards, valid)
    total = sum(kind.astype(int) for kind in (kinds.informative, kinds.all_wrong, kinds.all_right, kinds.too_few))
    assert total.tolist() == [1, 1, 1]
    for scale in ("std", "none"):
        advantages = group_advantages(rewards, valid, scale)
        assert advantages.any(axis=1).tolist() == kinds.informative.tolist()
        assert not advantages[~valid].any()
        np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-12)
