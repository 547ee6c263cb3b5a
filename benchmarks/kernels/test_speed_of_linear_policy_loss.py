"""`linear_policy_loss` with its backward, beside two operations, Liger's fused GRPO loss and plain torch; the bound is three products."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contest import Work, compete, function_of
from heads import draw
from peers import TEMPERATURE, dapo_losses, eager
from torch import Tensor

from polaris_kernels import linear_logprob, linear_policy_loss, policy_loss

ROWS, LENGTH = (40_960, 2048) if torch.cuda.is_available() else (128, 32)
Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(hidden, weight, targets, behaviour log-probs [T], advantages [T]) -> dapo's loss."""


def _three_products(device: torch.device) -> Loss:
    return lambda h, w, t, behaviour, advantage: linear_policy_loss(
        h, w, t, behaviour, advantage, None, float(len(t)), temperature=TEMPERATURE, proximal_logprob=behaviour
    )[0]


def _two_operations(device: torch.device) -> Loss:
    def function(h: Tensor, w: Tensor, t: Tensor, behaviour: Tensor, advantage: Tensor) -> Tensor:
        logprob = linear_logprob(h, w, t, temperature=TEMPERATURE)[0]
        return policy_loss(logprob, behaviour, advantage, None, float(len(t)), proximal_logprob=behaviour)[0]

    return function


def _eager(device: torch.device) -> Loss:
    return lambda h, w, t, behaviour, advantage: dapo_losses(eager(h, w, t)[0], behaviour, advantage).sum() / len(t)


def _liger(device: torch.device) -> Loss:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    module = LigerFusedLinearGRPOLoss(
        beta=0.0,
        compiled=device.type == "cuda",
        use_ref_model=False,
        epsilon_high=0.28,
        loss_type="dapo",
        temperature=TEMPERATURE,
        delta=3.0,
    )

    def function(h: Tensor, w: Tensor, t: Tensor, behaviour: Tensor, advantage: Tensor) -> Tensor:
        sequences = (-1, LENGTH)
        mask, of_sequence = torch.ones_like(t).view(sequences), advantage.view(sequences)[:, 0]
        return module(
            h.view(*sequences, h.shape[1]), w, t.view(sequences), mask, of_sequence, old_per_token_logps=behaviour.view(sequences)
        )[0]

    return function


CONTESTANTS = {"polaris": _three_products, "polaris, two operations": _two_operations, "eager": _eager, "liger": _liger}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_linear_policy_loss(benchmark, device, bound, green, name):
    function, ours = (function_of(CONTESTANTS, which, device) for which in (name, "polaris"))
    hidden, weight, targets = draw("qwen3-4b", ROWS, device)
    with torch.no_grad():
        behaviour = linear_logprob(hidden, weight, targets, temperature=TEMPERATURE)[0] - 0.05
    advantage = torch.tensor([1.0, -1.0], device=device).repeat_interleave(LENGTH).repeat(ROWS // (2 * LENGTH))

    def run(function):
        return torch.autograd.grad(function(hidden, weight, targets, behaviour, advantage), (hidden, weight))

    compared = name != "polaris" and green("linear_policy_loss")
    work = Work(flops=6 * ROWS * hidden.shape[1] * len(weight))
    other = (lambda: run(ours)) if compared else None
    compete(benchmark, lambda: run(function), other, work, bound, device, rounds=5 if device.type == "cuda" else 3)
    with torch.no_grad():
        benchmark.extra_info["loss"] = float(function(hidden, weight, targets, behaviour, advantage))
