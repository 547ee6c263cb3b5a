import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_state_dict
from transformers import get_cosine_schedule_with_warmup

from polaris.config.training import OptimizerConfig
from polaris.learn.optimizer import build_optimizer, learning_rate


def test_cosine_equals_transformers():
    config = OptimizerConfig(lr=3e-4, schedule="cosine", warmup_steps=5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    schedule = get_cosine_schedule_with_warmup(optimizer, 5, 40)
    for step in range(1, 41):
        optimizer.step()
        schedule.step()
        assert learning_rate(config, step, 40) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)


def test_constant_after_warmup_and_floor():
    constant = OptimizerConfig(lr=1.0, warmup_steps=4)
    assert [learning_rate(constant, step, 10) for step in (1, 4, 5, 10)] == [0.25, 1.0, 1.0, 1.0]
    floor = OptimizerConfig(lr=1.0, schedule="cosine", min_lr_fraction=0.1)
    assert learning_rate(floor, 10, 10) == pytest.approx(0.1)


def test_norms_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight)}


def test_a_save_before_the_first_update_changes_nothing():
    def first_update(saved):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        optimizer = build_optimizer(model, OptimizerConfig(lr=1e-2))
        if saved:
            get_state_dict(model, optimizer)
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        return model.weight.detach()

    assert torch.equal(first_update(True), first_update(False))


def test_moments_are_those_that_torch_makes():
    model = torch.nn.Linear(4, 4)
    ours = build_optimizer(model, OptimizerConfig())
    made = torch.optim.AdamW(model.parameters(), foreach=True)
    assert all(not value.any() for state in ours.state.values() for value in state.values())
    model(torch.ones(1, 4)).sum().backward()
    made.step()
    for parameter in model.parameters():
        for name, value in made.state[parameter].items():
            mine = ours.state[parameter][name]
            assert (mine.dtype, mine.device, mine.shape) == (value.dtype, value.device, value.shape)
            assert not mine.requires_grad
