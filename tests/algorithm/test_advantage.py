from __future__ import annotations

import ast
import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polaris.algorithm.advantages import advantages, batch_advantages, check_advantage, group_advantages, rloo_advantages
from polaris.algorithm.groups import classify_groups
from polaris.config.algorithm import ADVANTAGES
from polaris.errors import Refused, RunFailed

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


def verl_function(name):
    """verl's own function, taken from its file: the whole module needs ray."""
    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not installed; make peers installs it")
    file = Path(spec.submodule_search_locations[0]) / "trainer/ppo/core_algos.py"
    tree = ast.parse(file.read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    found.decorator_list, found.returns = [], None
    for argument in found.args.args:
        argument.annotation = None
    scope = {"torch": torch, "np": np, "defaultdict": defaultdict}
    exec(compile(ast.Module([found], []), str(file), "exec"), scope)
    return scope[name]


REWARDS = np.array([[1.0, 0, 0, 1, 1, 0, 0, 0], [0.2, 0.4, 0.4, 0.9, 1, 0, 0.3, 0.7], [-1.0, -0.5, -1, -1, -1, -1, -0.9, -1]])


@pytest.mark.parametrize(
    ("function", "ours", "settings"),
    [
        ("compute_grpo_outcome_advantage", lambda r, v: group_advantages(r, v, "std"), {}),
        ("compute_grpo_outcome_advantage", lambda r, v: group_advantages(r, v, "none"), {"norm_adv_by_std_in_grpo": False}),
        ("compute_rloo_outcome_advantage", rloo_advantages, {}),
    ],
)
def test_as_verl_computes_them(function, ours, settings):
    groups = np.repeat(np.arange(3), 8)
    token_rewards = torch.from_numpy(REWARDS).reshape(-1, 1) * torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    theirs, _ = verl_function(function)(token_rewards, torch.ones(24, 2), groups, **settings)
    np.testing.assert_allclose(ours(REWARDS, np.ones((3, 8), bool)), theirs[:, 0].reshape(3, 8).numpy(), rtol=1e-9, atol=1e-12)


def test_rloo_is_the_paper_s_mean_of_the_others():
    valid = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=bool)
    rewards = np.array([[1.0, 0.25, 0, np.nan], [0.5, -1, 7, 7], [1, 1, 1, 1]])
    expected = np.zeros((3, 4))
    for p, s in np.argwhere(valid).tolist():
        others = [rewards[p, other] for other in range(4) if other != s and valid[p, other]]
        expected[p, s] = rewards[p, s] - sum(others) / len(others)
    np.testing.assert_allclose(rloo_advantages(rewards, valid), expected, atol=1e-15)


def test_batch_is_divided_by_the_deviation_of_all_that_is_centred():
    """ScaleRL, section 3: centred on the group, over the standard deviation of these advantages in the batch."""
    valid = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    rewards = np.array([[1.0, 0.25, 0, np.nan], [0.5, -1, 3, 7], [1, 1, 0, 1]])
    centred = [r - np.mean(row) for row in ([1.0, 0.25, 0], [0.5, -1, 3, 7]) for r in row]
    found = batch_advantages(rewards, valid)
    np.testing.assert_allclose(found[valid], np.array(centred) / (np.std(centred, ddof=1) + 1e-6), rtol=1e-12)
    assert not found[~valid].any()


def test_batch_is_trl_s_where_the_means_of_the_groups_agree():
    trl = pytest.importorskip("trl.trainer.utils")
    rewards = np.array([[1.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.25, 0.75], [0.5, 0.5, 0.6, 0.4]])
    expected = (rewards - 0.5) / (float(trl.nanstd(torch.from_numpy(rewards))) + 1e-6)
    np.testing.assert_allclose(batch_advantages(rewards, np.ones((3, 4), bool)), expected, rtol=1e-7, atol=1e-12)


@given(rewards_and_valid, st.sampled_from(ADVANTAGES), st.sampled_from(["std", "none"]))
def test_invariants_of_all(case, name, scale):
    """Every group sums to 0; a gradient where rewards differ and nowhere else; a higher reward is never worth less."""
    rewards, valid = case
    found = advantages(name, scale, rewards, valid)
    assert found.any(axis=1).tolist() == classify_groups(rewards, rewards > 0, valid).informative.tolist()
    assert not found[~valid].any()
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    for row, advantage, there in zip(rewards, found, valid, strict=True):
        order = np.argsort(row[there], kind="stable")
        assert (np.diff(advantage[there][order]) >= -1e-12).all()


def own(tmp_path, body):
    (tmp_path / "mine.py").write_text(f"import numpy as np\n\ndef advantage(rewards, valid):\n    return {body}\n")
    return f"{tmp_path}:mine:advantage"


def test_an_own_function(tmp_path):
    name = own(tmp_path, "np.where(valid, np.where(rewards > 0, 2.0, -1.0), 0.0)")
    check_advantage(name, 2, 4)
    valid = np.array([[True, True, False]])
    assert advantages(name, "std", np.array([[1.0, 0.0, 1.0]]), valid).tolist() == [[2.0, -1.0, 0.0]]
    own(tmp_path, "0 * rewards")
    assert advantages(name, "std", np.array([[1.0, 0.0, 1.0]]), valid).any(), "edited while the run is going on: as it was at the start"
    check_advantage(name, 2, 4)
    assert not advantages(name, "std", np.array([[1.0, 0.0, 1.0]]), valid).any(), "a new start takes the new one"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("rewards - 0.5", "where valid is False"),
        ("np.where(valid, np.inf, 0.0)", "not finite"),
        ("rewards.sum(axis=1)", "shape [2] for rewards of shape [2, 4]"),
        ("1 / 0", "ZeroDivisionError"),
        ("'much'", "could not convert"),
    ],
)
def test_what_is_wrong_with_an_own_function_is_said_at_start_and_at_a_step(tmp_path, body, said):
    name = own(tmp_path, body)
    with pytest.raises(Refused) as refused:
        check_advantage(name, 2, 4)
    with pytest.raises(RunFailed) as failed:
        advantages(name, "std", np.array([[1.0, 0.0]]), np.array([[True, False]]))
    assert said in str(refused.value)
    assert (said if "shape" not in said else "shape [1]") in str(failed.value)
    assert "algorithm.advantage = 'mine:advantage'" in str(refused.value)
    assert "algorithm.advantage = 'mine:advantage'" in str(failed.value)


def test_an_own_function_with_other_arguments_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def advantage(rewards):\n    return rewards\n")
    with pytest.raises(Refused, match=r"called with \(rewards, valid\), but"):
        check_advantage(f"{tmp_path}:mine:advantage", 2, 4)


def test_kinds_of_groups():
    rewards = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=np.float64)
    valid = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    kinds = classify_groups(rewards, rewards > 0, valid)
    assert np.flatnonzero(kinds.all_wrong).tolist() == [0]
    assert np.flatnonzero(kinds.all_right).tolist() == [1, 4]
    assert np.flatnonzero(kinds.informative).tolist() == [2]
    assert np.flatnonzero(kinds.too_few).tolist() == [3, 5]


def test_kinds_where_length_earns_something_too():
    rewards = np.array([[-1.0, -0.5, -1.0], [1.0, 0.8, 1.0], [0.5, 0.5, 0.5], [0.5, 0.1, 0.0]])
    solved = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [1, 0, 1]], dtype=bool)
    valid = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 0]], dtype=bool)
    kinds = classify_groups(rewards, solved, valid)
    assert kinds.all_wrong.tolist() == [True, False, False, False]
    assert kinds.all_right.tolist() == [False, True, False, False]
    assert kinds.informative.tolist() == [True, True, False, False]
    assert kinds.too_few.tolist() == [False, False, False, True]


@given(rewards_and_valid, arrays(np.bool_, (3, 4)))
def test_at_most_one_kind_and_exactly_one_where_rewards_say_what_is_solved(case, solved):
    rewards, valid = case
    kinds = classify_groups(rewards, solved, valid)
    total = kinds.all_wrong.astype(int) + kinds.all_right + kinds.too_few
    assert (total <= 1).all()
    assert not (kinds.informative & kinds.too_few).any()
    kinds = classify_groups(solved * 1.0, solved, valid)
    total = sum(kind.astype(int) for kind in (kinds.informative, kinds.all_wrong, kinds.all_right, kinds.too_few))
    assert total.tolist() == [1, 1, 1]
