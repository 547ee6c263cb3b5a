"""`logprob_from_logits` beside peers that take logits; the bound is a copy: one read forward, one read and one write backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.contest import Arena, Contest, Work
from benchmarks.kernels.heads import HEADS
from benchmarks.kernels.peers import cuda_only
from benchmarks.kernels.size import Size

SHAPES: dict[Size, tuple[int, tuple[int, ...]]] = {
    "gpu": (HEADS["qwen3-4b"][0], (40_960, 8192)),
    "cpu": (HEADS["qwen3-4b"][0], (512,)),
    "tiny": (HEADS["tiny"][0], (64,)),
}
"""Vocabulary and rows."""
FromLogits = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits [T, V], targets [T]) -> log-probs, entropies [T]."""


def _ours(device: torch.device) -> FromLogits:
    from polaris_kernels import logprob_from_logits

    return logprob_from_logits


def _eager(device: torch.device) -> FromLogits:
    def function(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = logits.float().log_softmax(-1)
        return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)

    return function


def _trl(device: torch.device) -> FromLogits:
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    return lambda logits, targets: (selective_log_softmax(logits, targets), entropy_from_logits(logits))


def _trl_triton(device: torch.device) -> FromLogits:
    cuda_only("trl-triton", device)
    from trl.kernels import selective_log_softmax_and_entropy

    return selective_log_softmax_and_entropy


def _verl(device: torch.device) -> FromLogits:
    from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

    return lambda logits, targets: (logprobs_from_logits(logits, targets, inplace_backward=False), entropy_from_logits(logits))


CONTESTANTS = {"polaris": _ours, "eager": _eager, "trl": _trl, "trl-triton": _trl_triton, "verl": _verl}


def contests(size: Size) -> Iterator[Contest]:
    vocabulary, lengths = SHAPES[size]
    for rows in lengths:
        for direction in ("forward+backward", "forward"):
            yield Contest(
                operation="logprob_from_logits",
                parameters={"rows": rows, "direction": direction},
                contestants=CONTESTANTS,
                prepare=lambda device, case=(rows, vocabulary, direction): prepare(device, *case),
                rounds=20 if size == "gpu" else 3,
            )


def prepare(device: torch.device, rows: int, vocabulary: int, direction: str) -> Arena:
    generator = torch.Generator(device).manual_seed(0)
    logits = 4 * torch.randn(rows, vocabulary, generator=generator, device=device, dtype=torch.bfloat16)
    targets = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    leaf = logits.requires_grad_()

    def forward(function: Any) -> object:
        with torch.no_grad():
            return function(leaf, targets)

    def both(function: Any) -> object:
        logprob, entropy = function(leaf, targets)
        return torch.autograd.grad(logprob.sum() + 0.01 * entropy.sum(), leaf)

    def check(function: Any) -> dict[str, float]:
        exact = logits[:32].detach().double().log_softmax(-1).gather(1, targets[:32, None])[:, 0]
        with torch.no_grad():
            return {"log-prob error": float((function(leaf[:32], targets[:32])[0].double() - exact).abs().max())}

    run, passes = (forward, 1) if direction == "forward" else (both, 3)
    return Arena(work=Work(bytes=passes * logits.numel() * logits.element_size()), run=run, check=check)
