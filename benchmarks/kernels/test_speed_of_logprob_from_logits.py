"""`logprob_from_logits` beside peers that take logits; the bound is a copy: one read forward, one read and one write backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contest import Work, compete, function_of
from heads import HEADS
from peers import cuda_only
from torch import Tensor

VOCABULARY = HEADS["qwen3-4b"][0]
ROWS = (8192, 40_960) if torch.cuda.is_available() else (512,)
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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("rows", ROWS)
def test_logprob_from_logits(benchmark, device, bound, green, rows, name, direction):
    function, ours = (function_of(CONTESTANTS, which, device) for which in (name, "polaris"))
    generator = torch.Generator(device).manual_seed(0)
    logits = 4 * torch.randn(rows, VOCABULARY, generator=generator, device=device, dtype=torch.bfloat16)
    targets = torch.randint(VOCABULARY, (rows,), generator=generator, device=device)
    leaf = logits.requires_grad_()

    def forward(function):
        with torch.no_grad():
            return function(leaf, targets)

    def both(function):
        logprob, entropy = function(leaf, targets)
        return torch.autograd.grad(logprob.sum() + 0.01 * entropy.sum(), leaf)

    run, passes = (forward, 1) if direction == "forward" else (both, 3)
    compared = name != "polaris" and green("logprob_from_logits")
    work = Work(bytes=passes * logits.numel() * logits.element_size())
    other = (lambda: run(ours)) if compared else None
    compete(benchmark, lambda: run(function), other, work, bound, device, rounds=20 if device.type == "cuda" else 3)
    exact = logits[:32].detach().double().log_softmax(-1).gather(1, targets[:32, None])[:, 0]
    with torch.no_grad():
        benchmark.extra_info["log-prob error"] = float((function(leaf[:32], targets[:32])[0].double() - exact).abs().max())
