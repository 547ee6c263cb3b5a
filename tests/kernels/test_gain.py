"""Logits of truncating tensor cores times their gain: within 1e-4 of float64 where without it they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_by_kernels import tiled

from benchmarks.kernels.heads import HEADS, draw
from benchmarks.kernels.tensor_cores import AMPERE, HOPPER, dot
from polaris_kernels.gain import logit_gain
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.tiles import Tiles, architecture_tiles

TEMPERATURE = 0.8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("core", "chip"), [(HOPPER, "sm_90"), (AMPERE, "sm_80")])
@pytest.mark.parametrize("size", [896, 2560, 4096])
def test_log_probs_of_unlikely_tokens(monkeypatch, core, chip, size):
    """In a vocabulary of 2,000; the errors are those of the likely tokens' logits, however many others there are."""
    monkeypatch.setitem(HEADS, "here", (2000, size))
    hidden, weight, _ = (t.detach() for t in draw("here", 192, torch.device("cpu")))
    exact = hidden.double() @ weight.double().T
    scale = (exact.amax(1) / 32).clamp(min=1)  # a favourite that is its own rival has twice the logit of others, and the error
    likely = exact.topk(8, 1).indices
    sums = dot(core, hidden[:, None], weight[likely])
    errors = {}
    for name, gain in (("without", 1.0), ("with", logit_gain(chip, torch.bfloat16, size))):
        logits = exact.scatter(1, likely, sums * gain) / TEMPERATURE
        # The log-prob of a token whose own logit is near zero, and so exact.
        errors[name] = float(((logits.logsumexp(1) - (exact / TEMPERATURE).logsumexp(1)).abs() / scale).max())
    assert errors["with"] < 1e-4
    assert errors["with"] < errors["without"] / 2
    assert errors["without"] > 1e-4 or size < 2560


def test_the_gain_is_that_of_the_chip_and_of_half_precision():
    def gain(chip, dtype, size=2560):
        return architecture_tiles(chip, Head(weight=torch.empty(64, size, dtype=dtype))).gain

    assert gain("sm_90", torch.bfloat16) == gain("sm_100", torch.float16) == 1 + 0.27 * 160 * 2**-24
    assert gain("sm_80", torch.bfloat16) == gain("sm_89", torch.bfloat16) == 1 + 0.18 * 320 * 2**-24
    assert gain("sm_90", torch.float32) == gain("gfx942", torch.bfloat16) == 1
    assert gain("sm_90", torch.bfloat16, 5120) - 1 == pytest.approx(2 * (gain("sm_90", torch.bfloat16) - 1), rel=1e-6)


def test_kernels_take_it_into_every_logit():
    """A gain of 1.25, an exact number, is a temperature that is as much lower; gradients are of the logits before it."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 32, generator=generator).to(DEVICE) for n in (20, 101))
    targets = torch.randint(101, (20,), generator=generator).to(DEVICE)
    up = torch.randn(2, 20, generator=generator).to(DEVICE)
    temperature = torch.full((20,), TEMPERATURE, device=DEVICE)
    tiles = replace(Tiles(block_t=16, block_v=32, block_h=16, group=2, warps=4, stages=2, tma=False), gain=1.25)
    logprob, entropy, *gradients = tiled(hidden, weight, targets, temperature, up, tiles)
    ours = (logprob, entropy, *(1.25 * gradient for gradient in gradients))
    leaves = [t.double().requires_grad_() for t in (hidden, weight)]
    outputs = linear_logprob_reference(*leaves, targets, temperature=TEMPERATURE / 1.25)
    truth = (*outputs, *torch.autograd.grad((up.double() * torch.stack(outputs)).sum(), leaves))
    for got, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(got, true.detach(), rtol=1e-5, atol=1e-5)
