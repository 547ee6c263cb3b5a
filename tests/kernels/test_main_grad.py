"""The gradient of the head's weight added in float32 to a tensor of the caller's, by plain torch and by the Triton kernels."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from polaris_kernels import linear_logprob, linear_policy_loss
from polaris_kernels.linear_logprob import chunked, linear_logprob_reference
from polaris_kernels.linear_policy_loss import linear_policy_loss_reference
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, SIZE, VOCABULARY = 21, 40, 131  # no whole block of 64 columns
TEMPERATURE = 0.8


@pytest.fixture(params=["torch", "torch slab by slab", "kernels"])
def served(request, monkeypatch):
    """By plain torch in small chunks, or by the Triton kernels (interpreted without a GPU, at small tiles)."""
    if DEVICE == "cuda":
        return None if request.param == "kernels" else pytest.skip("the kernels serve a CUDA device")
    if request.param != "kernels":
        monkeypatch.setattr(chunked, "_BLOCK_ROWS", 8)
        monkeypatch.setattr(chunked, "_SLAB_COLUMNS", 50)
        if request.param != "torch":
            monkeypatch.setattr(chunked, "_KEPT_BYTES", 0)
        return None
    tiles = Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
    for operation in ("linear_logprob", "linear_policy_loss", "policy_loss"):
        module = importlib.import_module(f"polaris_kernels.{operation}.function")
        monkeypatch.setattr(module, "uses_triton", lambda tensor: tensor.dtype != torch.float64)
    for module in ("linear_logprob.function", "linear_policy_loss.tiled"):
        monkeypatch.setattr(importlib.import_module(f"polaris_kernels.{module}"), "tiles_for", lambda hidden, head: tiles)
    monkeypatch.setattr(importlib.import_module("polaris_kernels.linear_policy_loss.tiled"), "chunk_rows", lambda *_: 16)
    return None


def inputs(dtype=torch.float32, rows=ROWS, seed=0):
    """Hidden states, weight, targets and two numbers per row; three rows have no gradient, and one is ignored and not finite."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(rows, SIZE, generator=generator), torch.randn(VOCABULARY, SIZE, generator=generator)
    targets, numbers = torch.randint(VOCABULARY, (rows,), generator=generator), torch.randn(2, rows, generator=generator)
    numbers[:, 3:6], targets[7], hidden[7] = 0, -100, torch.nan
    return [x.to(DEVICE) for x in (hidden.to(dtype), weight.to(dtype), targets, numbers)]


def scored(hidden, weight, targets, numbers, **options):
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=TEMPERATURE, **options)
    return (numbers[0] * logprob + numbers[1] * entropy).sum()


def true_score(hidden, weight, targets, numbers):
    live = targets != -100
    logprob, entropy = linear_logprob_reference(hidden[live], weight, targets[live], temperature=TEMPERATURE)
    return (numbers[0, live] * logprob + numbers[1, live] * entropy).sum()


def fused(hidden, weight, targets, numbers, **options):
    gap, advantage = numbers
    return 3 * linear_policy_loss(hidden, weight, targets, gap - 5, advantage, None, 7.0, temperature=TEMPERATURE, **options)[0]


def true_loss(hidden, weight, targets, numbers):
    live, head = targets != -100, {"temperature": TEMPERATURE}
    gap, advantage = numbers[:, live]
    return 3 * linear_policy_loss_reference(hidden[live], weight, targets[live], gap - 5, advantage, None, 7.0, head=head, loss={})[0]


EVERY = pytest.mark.parametrize(("operation", "truth"), [(scored, true_score), (fused, true_loss)], ids=["linear_logprob", "policy loss"])


def true_gradients(truth, hidden, weight, *rest):
    leaves = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    return torch.autograd.grad(truth(*leaves, *rest), leaves)


def error(found, true):
    return float((found.double() - true).norm() / true.norm())


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_each_backward_adds_the_gradient_and_weight_gets_none(served, operation, truth, dtype):
    """To what is there, more exactly than rounded; hidden states get the gradient of old, and rows without gradient add nothing."""
    hidden, weight, *rest = inputs(dtype)
    true = true_gradients(truth, hidden, weight, *rest)[1]
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    of_hidden, of_weight = torch.autograd.grad(operation(*leaves, *rest), leaves)
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    main_grad = torch.linspace(-1, 1, weight.numel(), device=DEVICE, dtype=sums).view_as(weight)
    before = main_grad.clone()
    loss = operation(*leaves, *rest, main_grad=main_grad)
    assert torch.equal(main_grad, before), "the forward adds nothing"
    bound = {torch.float32: 1e-6 if DEVICE == "cpu" else 1e-5, torch.float64: 1e-12}.get(dtype, error(of_weight, true))
    for times in (1, 2):
        hidden.grad = None
        loss.backward(retain_graph=True)
        assert error(main_grad - before, times * true) < bound
        assert weight.grad is None
        torch.testing.assert_close(hidden.grad, of_hidden, rtol=1e-6, atol=1e-7)


@EVERY
@pytest.mark.parametrize("served", ["torch", "torch slab by slab"], indirect=True)
def test_many_small_gradients_keep_their_digits(served, operation, truth):
    """64 micro-batches of bfloat16: what float32 sums and what `weight.grad` sums, beside float64."""
    _, weight, *_ = inputs(torch.bfloat16)
    batches = [inputs(torch.bfloat16, rows=8, seed=1 + n) for n in range(64)]
    total, main_grad = 0, torch.zeros_like(weight, dtype=torch.float32)
    weight.requires_grad_()
    for hidden, _, *rest in batches:
        total = total + true_gradients(truth, hidden, weight, *rest)[1]
        operation(hidden, weight, *rest, main_grad=main_grad).backward()
        operation(hidden, weight, *rest).backward()
    ours, rounded = error(main_grad, total), error(weight.grad, total)
    print(f"{ours:.1e} {rounded:.1e}")
    assert ours < 2e-3, "but for the rounding of bfloat16 logit gradients"
    assert ours < rounded / 2


@EVERY
def test_nothing_happens_to_it_without_a_gradient(served, operation, truth):
    hidden, weight, *rest = inputs()
    main_grad = torch.full_like(weight, torch.nan)
    with torch.no_grad():
        operation(hidden, weight, *rest, main_grad=main_grad)
    assert main_grad.isnan().all()
    main_grad.zero_()
    (0 * operation(hidden.requires_grad_(), weight.requires_grad_(), *rest, main_grad=main_grad)).backward()
    assert main_grad.eq(0).all()


def test_a_loss_of_sequences_adds_too(served):
    """It is computed by the two operations."""
    hidden, weight, targets, (gap, advantage) = inputs()
    hidden, weight = hidden.nan_to_num(), weight.requires_grad_()
    options = {"kind": "gspo", "sequence_lengths": torch.tensor([ROWS], device=DEVICE), "mask": targets != -100, "denominator": 1.0}
    main_grad = torch.zeros_like(weight)
    for sink in (None, main_grad):
        with pytest.warns(UserWarning, match="computed by linear_logprob"):
            linear_policy_loss(hidden, weight, targets, gap - 5, advantage, **options, main_grad=sink)[0].backward()
    assert error(main_grad, weight.grad.double()) < 1e-5


@EVERY
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_forward_adds_once(operation, truth, reentrant):
    hidden, weight, *rest = inputs()
    expected = true_gradients(truth, hidden, weight, *rest)[1]
    main_grad = torch.zeros_like(weight)
    hidden.requires_grad_(), weight.requires_grad_()
    checkpoint(lambda *values: operation(*values, main_grad=main_grad), hidden, weight, *rest, use_reentrant=reentrant).backward()
    assert error(main_grad, expected) < 1e-6


def test_a_compiled_backward_adds_the_same():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(scored, fullgraph=True, backend=counter)
    sums = [torch.zeros(VOCABULARY, SIZE, device=DEVICE) for _ in range(2)]
    for rows in (9, 10, 33):
        hidden, weight, *rest = inputs(rows=rows)
        for operation, main_grad in zip((compiled, scored), sums, strict=True):
            operation(hidden, weight.requires_grad_(), *rest, main_grad=main_grad).backward()
        assert weight.grad is None
        assert sums[0].abs().max() > 0
        torch.testing.assert_close(*sums)
    assert counter.frame_count == 2


def test_compiled_forwards_before_their_backwards_need_an_alias_each():
    """torch saves a compiled backward's inputs and refuses what has changed since, but knows nothing of changes through `.data`."""
    torch._dynamo.reset()
    compiled = torch.compile(scored, fullgraph=True, backend="aot_eager")
    hidden, weight, *rest = inputs()
    weight.requires_grad_()
    main_grad = torch.zeros_like(weight)
    losses = [compiled(hidden, weight, *rest, main_grad=main_grad) for _ in range(2)]
    losses[0].backward()
    once = main_grad.clone()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses[1].backward()
    assert torch.equal(main_grad, once)
    main_grad.zero_()
    for loss in [compiled(hidden, weight, *rest, main_grad=main_grad.data) for _ in range(2)]:
        loss.backward()
    torch.testing.assert_close(main_grad, 2 * once)


@EVERY
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grad: grad[:-1], r"float32 \(130, 40\).* torch.zeros_like\(weight, dtype=torch.float32\), \(131, 40\)"),
        (lambda grad: grad.bfloat16(), "is torch.bfloat16 .* added in torch.float32"),
        (lambda grad: grad.double(), "is torch.float64 .* added in torch.float32"),
        (lambda grad: grad.T.contiguous().T, "must be contiguous"),
        (lambda grad: grad.requires_grad_(), r"require no gradient: .* main_grad.detach\(\)"),
        (lambda grad: grad.to("meta"), "main_grad is on meta: move all to one device"),
    ],
    ids=["shape", "half", "double", "layout", "leaf", "device"],
)
def test_what_cannot_be_added_to_is_refused(operation, truth, change, message):
    hidden, weight, *rest = inputs(torch.bfloat16)
    with pytest.raises(ValueError, match=message):
        operation(hidden, weight.requires_grad_(), *rest, main_grad=change(torch.zeros(VOCABULARY, SIZE, device=DEVICE)))


@EVERY
def test_a_weight_without_gradient_is_refused(operation, truth):
    hidden, weight, *rest = inputs()
    with pytest.raises(ValueError, match=r"leave it out, or call weight.requires_grad_\(\)"):
        operation(hidden.requires_grad_(), weight, *rest, main_grad=torch.zeros_like(weight))
