"""What a checkpoint gives back: draws, moments and records go on as if nothing had been written; settings are the configuration's."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from saving import save

from polaris.checkpoint import layout
from polaris.checkpoint.store import TrainState, begin_with, load
from polaris.config.training import OptimizerConfig
from polaris.data.pass_rates import PassRates
from polaris.data.prompt_statistics import PromptStatistics
from polaris.learn.optimizer import build_optimizer

STATE = TrainState(step=3, version=2, sampler={"epoch": 1, "cursor": 5}, nonfinite_streak=1)


def update(policy, optimizer, seed):
    """One update with gradients that only the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.distributed.tensor.distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
    optimizer.step()
    optimizer.zero_grad()


def draws():
    return random.random(), float(np.random.rand()), torch.rand(3).tolist()


def copies(policy):
    return [weight.clone() for _, weight in policy.named_weights()]


@pytest.fixture
def saved(trainer, tmp_path):
    """A checkpoint after two updates, and what came after it: weights of a third, draws, and the ledger."""
    policy, world = trainer
    optimizer, ledger = build_optimizer(policy, OptimizerConfig(lr=1e-2)), PassRates()
    for seed in (1, 2):
        update(policy, optimizer, seed)
    ledger.add("a", 1, 4)
    folder = save(tmp_path, STATE, policy, optimizer, world, keep=1, kept=[ledger])
    at_save = copies(policy)
    drawn = draws()
    update(policy, optimizer, 3)
    return folder, at_save, copies(policy), drawn


def test_after_a_load_draws_and_updates_are_those_after_the_save(trainer, saved):
    policy, world = trainer
    folder, _, after, drawn = saved
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    optimizer, ledger = build_optimizer(policy, OptimizerConfig(lr=1e-2)), PassRates()
    update(policy, optimizer, 8)
    ledger.add("b", 2, 2)
    assert load(folder, policy, optimizer, world, kept=[ledger]) == STATE
    assert draws() == drawn
    assert ledger.counts == {"a": (1, 4)}
    update(policy, optimizer, 3)
    assert all(map(torch.equal, copies(policy), after))


def test_what_a_difficulty_pass_has_counted_before_a_checkpoint_of_step_0_counts_once(trainer, tmp_path):
    policy, world = trainer
    optimizer, passed = build_optimizer(policy, OptimizerConfig(lr=1e-2)), {"a": (1.0, 4.0)}
    statistics, restored = PromptStatistics(half_life=50), PromptStatistics(half_life=50)
    statistics.begin(passed)
    folder = save(tmp_path, replace(STATE, step=0), policy, optimizer, world, keep=1, kept=[statistics])
    load(folder, policy, optimizer, world, kept=[restored])
    restored.begin(passed)  # as `polaris.recipe.run` does at step 0
    assert restored.recent("a", 0) == passed["a"]


def test_settings_of_the_optimizer_are_the_configurations_and_not_the_checkpoints(trainer, saved):
    policy, world = trainer
    config = OptimizerConfig(lr=1e-3, beta1=0.5, beta2=0.6, eps=1e-3, weight_decay=0.7)
    optimizer = build_optimizer(policy, config)
    load(saved[0], policy, optimizer, world)
    for group, decay in zip(optimizer.param_groups, (0.7, 0.0), strict=True):
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.5, 0.6), 1e-3, decay)


@pytest.mark.parametrize("with_optimizer", [False, True])
def test_a_branch_takes_weights_and_the_optimizer_only_if_wanted(trainer, saved, with_optimizer):
    policy, _ = trainer
    folder, at_save, after, _ = saved
    optimizer = build_optimizer(policy, OptimizerConfig(lr=1e-2))
    begin_with(folder, policy, optimizer if with_optimizer else None)
    assert all(map(torch.equal, copies(policy), at_save))
    assert {int(state["step"]) for state in optimizer.state.values()} == {2 if with_optimizer else 0}
    update(policy, optimizer, 3)
    assert all(map(torch.equal, copies(policy), after)) == with_optimizer


def test_the_generators_of_a_rank_that_was_not_there_stay_as_they_are_seeded(trainer, saved):
    policy, world = trainer
    layout.rank_file(saved[0], 0).unlink()
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    load(saved[0], policy, build_optimizer(policy, OptimizerConfig()), world)
    assert torch.equal(torch.rand(3), expected)
