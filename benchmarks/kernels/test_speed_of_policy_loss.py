"""`policy_loss` and its backward, beside verl's vanilla loss and plain torch, which has no metrics. On CPU ours is plain torch too.

The bound is a copy of what is read and written.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from contest import Work, compete, function_of
from peers import dapo_losses
from torch import Tensor

ROWS = (40_960, 131_072)
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(log-probs, old log-probs, advantages, mask; [T] each) -> dapo's loss."""


def _ours(device: torch.device) -> Loss:
    from polaris_kernels import policy_loss

    return lambda logprob, old, advantage, mask: policy_loss(logprob, old, advantage, mask, 30_000.0, proximal_logprob=old)[0]


def _eager(device: torch.device) -> Loss:
    return lambda logprob, old, advantage, mask: (dapo_losses(logprob, old, advantage) * mask).sum() / 30_000.0


def _verl(device: torch.device) -> Loss:
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    settings = SimpleNamespace(
        clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28, global_batch_info={}, get=lambda name, other: other
    )
    return lambda logprob, old, advantage, mask: compute_policy_loss_vanilla(
        old[None], logprob[None], advantage[None], mask[None], config=settings
    )[0]


CONTESTANTS = {"polaris": _ours, "eager": _eager, "verl": _verl}


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("rows", ROWS)
def test_policy_loss(benchmark, device, bound, green, rows, name):
    function, ours = (function_of(CONTESTANTS, which, device) for which in (name, "polaris"))
    generator = torch.Generator(device).manual_seed(0)
    logprob, noise, advantage = torch.randn(3, rows, generator=generator, device=device)
    logprob, old = (-logprob.abs()).requires_grad_(), -logprob.abs() + 0.1 * noise
    mask = torch.rand(rows, generator=generator, device=device) < 0.8

    def run(function):
        return torch.autograd.grad(function(logprob, old, advantage, mask), logprob)

    compared = name != "polaris" and green("policy_loss")
    work = Work(bytes=rows * (4 * 4 + 1))
    other = (lambda: run(ours)) if compared else None
    compete(benchmark, lambda: run(function), other, work, bound, device, rounds=50)
