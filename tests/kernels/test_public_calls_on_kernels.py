"""The public operations with the Triton kernels behind them, registration with torch included: what a CUDA device runs."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import pytest
import torch

from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss
from polaris_kernels.logprob_from_logits.tiled import Shape
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODULES = [
    importlib.import_module(f"polaris_kernels.{operation}.function")
    for operation in ("linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss")
]
ROWS, SIZE, VOCABULARY = 37, 24, 131


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Triton serves every dtype but float64, in which plain torch tells the truth; without a GPU at small tiles."""
    if DEVICE == "cuda":
        return
    tiles = Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
    constants = Shape.constants
    monkeypatch.setattr(Shape, "constants", lambda self, logits: constants(Shape(threads=32, bytes=16), logits))
    for module in MODULES:
        monkeypatch.setattr(module, "uses_triton", lambda tensor: tensor.dtype != torch.float64)
    for module in ("linear_logprob.function", "linear_policy_loss.tiled"):
        monkeypatch.setattr(importlib.import_module(f"polaris_kernels.{module}"), "tiles_for", lambda hidden, head: tiles)


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(ROWS, SIZE, generator=generator), torch.randn(VOCABULARY, SIZE, generator=generator)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    return hidden.to(DEVICE), weight.to(DEVICE), targets.to(DEVICE)


def tokens(seed=1):
    generator = torch.Generator().manual_seed(seed)
    behaviour, advantage = -4 * torch.rand(ROWS, generator=generator), torch.randn(ROWS, generator=generator)
    advantage[5:11] = 0
    return behaviour.to(DEVICE), advantage.to(DEVICE), (torch.rand(ROWS, generator=generator) < 0.8).to(DEVICE)


def scored(hidden, weight, targets, bias=None):
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=0.8, bias=bias)
    return [logprob, entropy], logprob.sum() + entropy.square().sum()


def fused(hidden, weight, targets, bias=None):
    lengths = torch.tensor([30, 0, 7], device=DEVICE)
    options = {"kind": "grpo", "correction": "tis", "sequence_lengths": lengths, "temperature": 0.8, "bias": bias}
    loss, totals, logprob, entropy = linear_policy_loss(hidden, weight, targets, *tokens(), 3.0, **options)
    return [loss, logprob, entropy, *totals.values()], loss


def from_logits(hidden, weight, targets):
    logprob, entropy = logprob_from_logits(hidden @ weight.T, targets, 0.8)
    return [logprob, entropy], logprob.sum() + entropy.square().sum()


def loss_of_logprobs(hidden, weight, targets):
    logprob = (hidden @ weight.T).log_softmax(1).gather(1, targets[:, None])[:, 0]
    loss, totals = policy_loss(logprob, *tokens(), 3.0, correction="mask")
    return [loss, *totals.values()], loss


EVERY = pytest.mark.parametrize("operation", [scored, fused, from_logits, loss_of_logprobs])


def run(operation, hidden, weight, targets):
    leaves = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
    outputs, loss = operation(*leaves, targets)
    return [r.detach().double() for r in (*outputs, *torch.autograd.grad(loss, leaves))]


@EVERY
def test_same_as_float64(operation):
    hidden, weight, targets = inputs()
    for ours, truth in zip(run(operation, hidden, weight, targets), run(operation, hidden.double(), weight.double(), targets), strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-4, atol=2e-5)


@EVERY
def test_every_element_is_written(operation):
    expected = run(operation, *inputs())
    torch.use_deterministic_algorithms(True)  # torch then fills every new tensor with NaN
    try:
        assert torch.empty(3, device=DEVICE).isnan().all()
        ours = run(operation, *inputs())
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("operation", [scored, fused])
@pytest.mark.parametrize("layout", ["transposed", "expanded", "strided"])
def test_any_layout_of_memory(operation, layout):
    hidden, weight, targets = inputs()
    if layout == "expanded":
        hidden = hidden[:1].expand(ROWS, SIZE)
    other = {"transposed": hidden.T.contiguous().T, "expanded": hidden, "strided": torch.stack([hidden, hidden], 2)[..., 0]}[layout]
    expected = run(operation, hidden.contiguous(), weight, targets)
    for ours, same in zip(run(operation, other, weight.T.contiguous().T, targets), expected, strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_logits_of_any_layout(layout):
    hidden, weight, targets = inputs()
    logits = hidden @ weight.T
    other = {"transposed": logits.T.contiguous().T, "strided": torch.stack([logits, logits], 2)[..., 0]}[layout]
    assert not other.is_contiguous()
    leaves = [tensor.detach().requires_grad_() for tensor in (other, logits)]
    results = [logprob_from_logits(leaf, targets, 0.8) for leaf in leaves]
    gradients = [torch.autograd.grad(logprob.sum() + entropy.sum(), leaf) for (logprob, entropy), leaf in zip(results, leaves, strict=True)]
    for ours, same in zip((*results[0], *gradients[0]), (*results[1], *gradients[1]), strict=True):
        assert torch.equal(ours, same)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_row_stays_alone(bad):
    hidden, weight, targets = inputs()
    whole = run(scored, hidden, weight, targets)
    hidden[3, 2] = bad
    broken = run(scored, hidden, weight, targets)
    others = torch.arange(ROWS, device=DEVICE) != 3
    for ours, before in zip(broken[:3], whole[:3], strict=True):
        assert torch.equal(ours[others], before[others])
        assert ours[3].isnan().any()
    assert broken[3].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernels", "torch"])
def test_an_ignored_row_may_hold_anything(dtype):
    hidden, weight, targets = inputs()
    targets[3] = -100
    logits = (hidden @ weight.T).to(dtype)
    hidden[3], logits[3] = math.nan, math.nan
    leaf = logits.requires_grad_()
    logprob, entropy = logprob_from_logits(leaf, targets)
    (logprob.sum() + entropy.sum()).backward()
    assert logprob[3] == entropy[3] == 0
    assert leaf.grad[3].eq(0).all()
    logprob, entropy, hidden_gradient, weight_gradient = run(scored, hidden.to(dtype), weight.to(dtype), targets)
    assert logprob[3] == entropy[3] == 0
    assert hidden_gradient[3].eq(0).all()
    assert weight_gradient.isfinite().all()


@pytest.mark.parametrize("operation", [scored, fused])
def test_a_bias_of_any_layout(operation):
    hidden, weight, targets = inputs()
    wide = torch.randn(VOCABULARY, 2, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    for bias in (wide[:, 0], wide[:1, 0].expand(VOCABULARY)):
        (ours, _), (expected, _) = (operation(hidden, weight, targets, bias=values) for values in (bias, bias.contiguous()))
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_tokens_that_a_bias_rules_out():
    hidden, weight, targets = inputs()
    bias = torch.zeros(VOCABULARY, device=DEVICE)
    bias[:64] = -math.inf  # a whole strip
    targets = 64 + targets % (VOCABULARY - 64)
    ours = linear_logprob(hidden, weight, targets, bias=bias)
    truth = linear_logprob(hidden.double(), weight[64:].double(), targets - 64)
    for got, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(got.double(), true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", [scored, fused])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("size", [64, 50])
def test_any_size_and_any_place_in_memory(operation, size, offset):
    """Sizes of no whole blocks, matrices that begin in the middle of 16 bytes as views of flat parameters may, an odd vocabulary."""
    generator = torch.Generator().manual_seed(3)
    hidden, weight = (torch.randn(n * size + offset, generator=generator)[offset:].view(n, size).to(DEVICE) for n in (ROWS, VOCABULARY))
    if DEVICE == "cuda":
        hidden, weight = (torch.cat([m.new_zeros(offset), m.flatten()])[offset:].view(m.shape) for m in (hidden, weight))
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator).to(DEVICE)
    assert bool(weight.data_ptr() % 16) == bool(offset)
    found, truth = run(operation, hidden, weight, targets), run(operation, hidden.double(), weight.double(), targets)
    for ours, true in zip(found, truth, strict=True):
        assert ours.shape == true.shape
        torch.testing.assert_close(ours, true, rtol=1e-4, atol=5e-5)


def test_a_single_row_of_a_wider_matrix(monkeypatch):
    """Contiguous for torch, whatever its stride: tensor descriptors want multiples of 16 bytes."""
    module = importlib.import_module("polaris_kernels.linear_logprob.function")
    if DEVICE == "cpu":
        tiles = module.tiles_for(None, None)
        monkeypatch.setattr(module, "tiles_for", lambda hidden, head: replace(tiles, tma=True))
    generator = torch.Generator().manual_seed(3)
    hidden, weight = (torch.randn(n, 65, generator=generator).to(DEVICE)[:, :64] for n in (3, VOCABULARY))
    targets = torch.tensor([5], device=DEVICE)
    assert hidden[:1].is_contiguous()
    ours, truth = linear_logprob(hidden[:1], weight, targets), linear_logprob(hidden[:1].double(), weight.double(), targets)
    for got, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(got.double(), true, rtol=1e-5, atol=1e-5)
