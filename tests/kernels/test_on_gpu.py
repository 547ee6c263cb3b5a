"""The compiled kernels at real sizes: the head of Qwen3, float64 as truth, plain torch in the same dtype as the bound."""

from __future__ import annotations

import pytest
import torch

from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss
from polaris_kernels.linear_logprob import linear_logprob_reference

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
VOCABULARY = 151_936


def inputs(rows, size=1024, vocabulary=VOCABULARY, dtype=torch.bfloat16, peak=25.0, seed=0):
    """Hidden states that give one token of each row a logit of about `peak`; half of the targets lie on it."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    weight = torch.randn(vocabulary, size, generator=generator, device=DEVICE)
    favourite = torch.randint(vocabulary, (rows,), generator=generator, device=DEVICE)
    hidden = weight[favourite] * peak / weight[favourite].square().sum(1, keepdim=True)
    hidden += 0.05 * torch.randn(rows, size, generator=generator, device=DEVICE)
    other = torch.randint(vocabulary, (rows,), generator=generator, device=DEVICE)
    targets = torch.where(torch.arange(rows, device=DEVICE) % 2 == 0, favourite, other)
    return hidden.to(dtype), weight.to(dtype), targets


def outputs_and_gradients(function, hidden, weight, targets):
    leaves = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
    logprob, entropy = function(*leaves, targets, temperature=0.9)
    weights = torch.linspace(-1, 1, len(targets), device=DEVICE, dtype=logprob.dtype)
    loss = (weights * logprob + 0.1 * entropy).sum()
    return [r.detach().double() for r in (logprob, entropy, *torch.autograd.grad(loss, leaves))]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 32_001])
def test_no_worse_than_eager(dtype, vocabulary):
    values = inputs(300, 256, vocabulary, dtype)
    truth = outputs_and_gradients(linear_logprob_reference, *(v.double() for v in values[:2]), values[2])
    eager = outputs_and_gradients(linear_logprob_reference, *values)
    ours = outputs_and_gradients(linear_logprob, *values)
    for name, got, bound, true in zip(("logprob", "entropy", "hidden", "weight"), ours, eager, truth, strict=True):
        error, limit = (got - true).norm() / true.norm(), (bound - true).norm() / true.norm()
        print(f"{name} {dtype} V={vocabulary}: {error:.2e}, eager {limit:.2e}")
        assert error <= limit + 1e-6, name
    assert (ours[0] - truth[0]).abs().max() < 1e-4


@pytest.mark.parametrize("size", [256, 250])
def test_rows_do_not_depend_on_their_neighbours(size):
    hidden, weight, targets = inputs(65_537, size, 5000)
    with torch.no_grad():
        whole = linear_logprob(hidden, weight, targets)
        for rows in (slice(65_536, 65_537), slice(1000, 1003), slice(40_000, 65_000)):
            for alone, among in zip(linear_logprob(hidden[rows], weight, targets[rows]), whole, strict=True):
                assert torch.equal(alone, among[rows])


def test_the_same_call_gives_the_same_bits():
    values = inputs(2000, 256, 20_000)
    first, second = (outputs_and_gradients(linear_logprob, *values) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_memory_is_bounded():
    hidden, weight, targets = inputs(8192)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = linear_logprob(hidden.requires_grad_(), weight.requires_grad_(), targets)
    sum(output.sum() for output in outputs).backward()
    assert torch.cuda.max_memory_allocated() - before < 8192 * VOCABULARY * 2 / 2


@pytest.mark.parametrize("kind", ["dapo", "grpo", "cispo"])
def test_three_products_equal_four(kind):
    hidden, weight, targets = inputs(5000, 256, 20_000)
    advantage = torch.randn(5000, device=DEVICE)
    lengths = torch.full((10,), 500, device=DEVICE)
    with torch.no_grad():
        behaviour = linear_logprob(hidden, weight, targets)[0] + 0.1 * torch.randn(5000, device=DEVICE)
    options = {"kind": kind, "correction": "tis", "sequence_lengths": lengths}

    def two(h, w):
        return policy_loss(linear_logprob(h, w, targets)[0], behaviour, advantage, None, 5000.0, **options)[0]

    def one(h, w):
        return linear_policy_loss(h, w, targets, behaviour, advantage, None, 5000.0, **options)[0]

    results = []
    for function in (one, two):
        leaves = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
        loss = function(*leaves)
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for ours, expected in zip(results[0][1:], results[1][1:], strict=True):
        assert (ours.double() - expected.double()).norm() <= 2e-2 * expected.double().norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_no_worse_than_eager(dtype):
    generator = torch.Generator(DEVICE).manual_seed(0)
    logits = (5 * torch.randn(500, VOCABULARY, generator=generator, device=DEVICE)).to(dtype)
    targets = torch.randint(VOCABULARY, (500,), generator=generator, device=DEVICE)
    leaf = logits.clone().requires_grad_()
    logprob, entropy = logprob_from_logits(leaf, targets)
    (logprob.sum() + entropy.sum()).backward()
    truth = logits.double().requires_grad_()
    logprobs = truth.log_softmax(-1)
    chosen, spread = logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)
    (chosen.sum() + spread.sum()).backward()
    assert (logprob.double() - chosen).abs().max() < 1e-4
    assert (entropy.double() - spread).abs().max() < 1e-4
    assert (leaf.grad.double() - truth.grad).norm() < 5e-3 * truth.grad.norm()
