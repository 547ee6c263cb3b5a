import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from polaris.config.schema import OptimizerConfig
from polaris.trainer.optimizer import build_optimizer, learning_rate


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
