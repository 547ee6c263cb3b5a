"""float16 gradients of every single row, where incoming gradients differ a million times from row to row."""

from __future__ import annotations

import torch
from head_by_kernels import tiled

from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, SIZE, VOCABULARY = 48, 64, 2500
TILES = Tiles(block_t=16, block_v=512, block_h=64, group=2, warps=4, stages=2, tma=False, merge=32)


def inputs():
    """Likely and unlikely targets, gradients of 3e-5 to 3e-11 times 2^27, which a GradScaler would reach."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, SIZE, generator=generator)
    favourite = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    hidden = weight[favourite] * 12 / weight[favourite].square().sum(1, keepdim=True) + 0.1 * torch.randn(ROWS, SIZE, generator=generator)
    targets = torch.where(torch.rand(ROWS, generator=generator) < 0.5, favourite, torch.randint(VOCABULARY, (ROWS,), generator=generator))
    up = 2**27 * 3e-5 * torch.logspace(0, -6, ROWS)[torch.randperm(ROWS, generator=generator)]
    return [x.to(DEVICE) for x in (hidden.half(), weight.half(), targets, up)]


def test_every_row_is_as_exact_as_in_bfloat16():
    """Whose numbers are off by up to 2^-9; one power of two for all rows keeps each to a few of float16's 2^-11."""
    hidden, weight, targets, up = inputs()
    temperature = torch.ones(ROWS, device=DEVICE)
    ours = tiled(hidden, weight, targets, temperature, (up, None), TILES)[2:]
    leaves = [t.double().requires_grad_() for t in (hidden, weight)]
    truth = torch.autograd.grad((up.double() * linear_logprob_reference(*leaves, targets)[0]).sum(), leaves)
    for name, got, true, rows in zip(("hidden", "weight"), ours, truth, (slice(None), targets.unique()), strict=True):
        error = (got - true)[rows].norm(dim=1) / true[rows].norm(dim=1)
        assert error.max() < 2**-9, f"{name}: {float(error.max()):.1e}"
        assert error.median() < 2**-11, f"{name}: {float(error.median()):.1e}"
