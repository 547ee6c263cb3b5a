"""In a CUDA graph the backward of `linear_logprob` may not ask how many rows have a gradient: all take part, the dead ones as zeros."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polaris_kernels import linear_logprob
from polaris_kernels.linear_logprob import function
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, SIZE, VOCABULARY = 37, 32, 131
TILES = Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
WAITS = {"nonzero", "_local_scalar_dense", "item", "masked_select", "unique"}


class Operations(TorchDispatchMode):
    """The names of what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.add(function.__name__.split(".")[0])
        return function(*arguments, **(options or {}))


@pytest.fixture(params=["torch", "kernels"])
def serve(request, monkeypatch):
    monkeypatch.setattr(function, "uses_triton", lambda tensor: request.param == "kernels")
    monkeypatch.setattr(function, "tiles_for", lambda hidden, head: TILES)
    # As it is, not as an operation of torch, into which a dispatch mode does not see.
    monkeypatch.setattr(function, "_backward", function._backward._init_fn)


def backward(dtype, added):
    """Gradients where some rows are ignored, some have no gradient, and one of these is NaN; and what torch did for them.

    That of the weight is `added` to a tensor of float32, or returned.
    """
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(ROWS, SIZE, generator=generator), torch.randn(VOCABULARY, SIZE, generator=generator)
    bias = torch.randn(VOCABULARY, generator=generator)
    bias[7] = 100.0  # e^100 is infinite in float32
    bias = bias.to(DEVICE, dtype).requires_grad_()
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator).to(DEVICE)
    coefficients = torch.randn(2, ROWS, generator=generator).to(DEVICE)
    targets[[3, 8]], coefficients[:, 11:20], hidden[12], hidden[8] = -100, 0.0, torch.nan, torch.inf
    leaves = [leaf.to(DEVICE, dtype).requires_grad_() for leaf in (hidden, weight)]
    main_grad = torch.zeros(weight.shape, device=DEVICE) if added else None
    logprob, entropy = linear_logprob(*leaves, targets, temperature=0.8, bias=bias, main_grad=main_grad)
    with Operations() as operations:
        gradients = torch.autograd.grad([logprob, entropy], [*leaves, bias], [*coefficients], allow_unused=added)
    return [main_grad if gradient is None else gradient for gradient in gradients], operations.names


@pytest.mark.parametrize("added", [False, True], ids=["returned", "added"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_same_gradients_without_a_question(serve, monkeypatch, dtype, added):
    expected, names = backward(dtype, added)
    assert names & WAITS, "or this would prove nothing"
    monkeypatch.setattr(function, "is_captured", lambda device: True)
    captured, names = backward(dtype, added)
    assert not names & WAITS
    for ours, other in zip(captured, expected, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(
            ours, other, rtol=1e-5 if dtype == torch.float32 else 2e-3, atol=1e-6 if dtype == torch.float32 else 1e-3
        )
    assert captured[0][[3, 8, *range(11, 20)]].eq(0).all()
