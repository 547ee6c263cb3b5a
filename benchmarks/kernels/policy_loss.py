"""`policy_loss` and its backward, beside verl's vanilla loss and plain torch, which has no metrics. On CPU ours is plain torch too.

The bound is a copy of what is read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.contest import Arena, Contest, Work
from benchmarks.kernels.peers import dapo_losses
from benchmarks.kernels.size import Size

SHAPES: dict[Size, tuple[int, ...]] = {"gpu": (40_960, 131_072), "cpu": (40_960, 131_072), "tiny": (64,)}
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


def contests(size: Size) -> Iterator[Contest]:
    for rows in SHAPES[size]:
        yield Contest(
            operation="policy_loss",
            parameters={"rows": rows},
            contestants=CONTESTANTS,
            prepare=lambda device, rows=rows: prepare(device, rows),
            rounds=3 if size == "tiny" else 50,
        )


def prepare(device: torch.device, rows: int) -> Arena:
    generator = torch.Generator(device).manual_seed(0)
    logprob, noise, advantage = torch.randn(3, rows, generator=generator, device=device)
    logprob, old = (-logprob.abs()).requires_grad_(), -logprob.abs() + 0.1 * noise
    mask = torch.rand(rows, generator=generator, device=device) < 0.8

    def run(function: Any) -> object:
        return torch.autograd.grad(function(logprob, old, advantage, mask), logprob)

    return Arena(work=Work(bytes=rows * (4 * 4 + 1)), run=run)
