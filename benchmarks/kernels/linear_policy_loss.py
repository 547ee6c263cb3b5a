"""`linear_policy_loss` with its backward, beside two operations, Liger's fused GRPO loss and plain torch; the bound is three products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.contest import Arena, Contest, Work
from benchmarks.kernels.heads import draw
from benchmarks.kernels.peers import TEMPERATURE, dapo_losses, eager
from benchmarks.kernels.size import Size
from polaris_kernels import linear_logprob, linear_policy_loss, policy_loss

SHAPES: dict[Size, list[tuple[str, int, int]]] = {
    "gpu": [("qwen3-4b", rows, 2048) for rows in (40_960, 8192, 98_304)],
    "cpu": [("qwen3-4b", 128, 32)],
    "tiny": [("tiny", 64, 16)],
}
"""Head, rows, and rows of one sequence."""
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
        length = int((advantage != advantage[0]).int().argmax())  # of a sequence: the advantage's first change
        sequences = (-1, length)
        mask, of_sequence = torch.ones_like(t).view(sequences), advantage.view(sequences)[:, 0]
        return module(
            h.view(*sequences, h.shape[1]), w, t.view(sequences), mask, of_sequence, old_per_token_logps=behaviour.view(sequences)
        )[0]

    return function


CONTESTANTS = {"polaris": _three_products, "polaris, two operations": _two_operations, "eager": _eager, "liger": _liger}


def contests(size: Size) -> Iterator[Contest]:
    for head, rows, length in SHAPES[size]:
        yield Contest(
            operation="linear_policy_loss",
            parameters={"head": head, "rows": rows},
            contestants=CONTESTANTS,
            prepare=lambda device, case=(head, rows, length): prepare(device, *case),
            rounds=5 if size == "gpu" else 3,
        )


def prepare(device: torch.device, head: str, rows: int, length: int) -> Arena:
    hidden, weight, targets = draw(head, rows, device)
    with torch.no_grad():
        behaviour = linear_logprob(hidden, weight, targets, temperature=TEMPERATURE)[0] - 0.05
    advantage = torch.tensor([1.0, -1.0], device=device).repeat_interleave(length).repeat(rows // (2 * length))

    def run(function: Any) -> object:
        return torch.autograd.grad(function(hidden, weight, targets, behaviour, advantage), (hidden, weight))

    def check(function: Any) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float(function(hidden, weight, targets, behaviour, advantage))}

    return Arena(work=Work(flops=6 * rows * weight.numel()), run=run, check=check)
