"""The compiled kernels at real sizes: the head of Qwen3, float64 as truth, plain torch in the same dtype as the bound."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss
from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.linear_policy_loss import linear_policy_loss_reference

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
    """Within one unit in the last place of a float32 logit: log-probs and entropies in nats, gradients relative to their norm.

    Entropies are as small as 1e-6 here: relative to them, float32's eager result is off by a hundredth too.
    """
    values = inputs(300, 256, vocabulary, dtype)
    unit = torch.finfo(torch.float32).eps * 25 / 0.9
    truth = outputs_and_gradients(linear_logprob_reference, *(v.double() for v in values[:2]), values[2])
    eager = outputs_and_gradients(linear_logprob_reference, *values)
    ours = outputs_and_gradients(linear_logprob, *values)
    for name, got, bound, true in zip(("logprob", "entropy", "hidden", "weight"), ours, eager, truth, strict=True):
        scale = len(true) ** 0.5 if true.ndim == 1 else true.norm()
        error, limit = ((values - true).norm() / scale for values in (got, bound))
        print(f"{name} {dtype} V={vocabulary}: {error:.2e}, eager {limit:.2e}")
        assert error <= limit + unit, f"{name}: {error:.2e}, eager {limit:.2e}"
    assert (ours[0] - truth[0]).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_log_probs_at_the_hidden_size_of_qwen3_4b(dtype):
    """Log-probs of likely tokens to 1e-4, of any other token to 3e-4.

    A tensor core truncates its float32 sum after each 16 products: 160 times less than a unit in the last place of a partial sum, which
    grows to a logit of 30 for the likely token. That is at most 2.1e-4 there and 0.4e-4 for a token of the bulk, over the temperature.
    (An emulation on a CPU finds 1.7e-4. For likely tokens the errors of logit and sum cancel.)
    """
    hidden, weight, targets = inputs(300, 2560, VOCABULARY, dtype)
    likely = torch.arange(300, device=DEVICE) % 2 == 0
    with torch.no_grad():
        logprob, _ = linear_logprob(hidden, weight, targets, temperature=0.9)
        truth, _ = linear_logprob_reference(hidden.double(), weight.double(), targets, temperature=0.9)
    error = (logprob - truth).abs()
    print(f"{dtype}: likely {error[likely].max():.2e}, bulk {error[~likely].max():.2e}")
    assert error[likely].max() < 1e-4
    assert error[~likely].max() < 3e-4


@pytest.mark.parametrize("denominator", [1e3, 1e6, 1e7])
def test_float16_gradients_do_not_depend_on_the_denominator(denominator):
    """Two chunks, scaled by a GradScaler as it begins; the bound is two roundings of float16."""
    hidden, weight, targets = inputs(5000, 256, 20_000, torch.float16)
    behaviour = torch.full((5000,), -2.0, device=DEVICE)
    advantage = torch.randn(5000, generator=torch.Generator(DEVICE).manual_seed(1), device=DEVICE)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**16)

    def scaled(operation, *leaves):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        loss = operation(*leaves, targets, behaviour, advantage, None, denominator)[0]
        return torch.autograd.grad(scaler.scale(loss), leaves)

    truth = scaled(partial(linear_policy_loss_reference, head={}, loss={}), hidden.double(), weight.double())
    for name, ours, true in zip(("hidden", "weight"), scaled(linear_policy_loss, hidden, weight), truth, strict=True):
        error = (ours.double() - true).norm() / true.norm()
        print(f"{name}, denominator {denominator:.0e}: {error:.2e}")
        assert error < 2 * torch.finfo(torch.float16).eps, name


@pytest.mark.parametrize("size", [1e-5, 1e-7])
def test_float16_gradients_of_small_incoming_ones(size):
    """Logit gradients far below float16's range, hidden gradients within it."""
    hidden, weight, targets = inputs(300, 256, 20_000, torch.float16)
    hidden, weight = hidden / 512, weight * 512

    def gradient(function, *leaves):
        leaf = leaves[0].detach().requires_grad_()
        logprob, entropy = function(leaf, leaves[1], targets, temperature=0.9)
        return torch.autograd.grad(size * (logprob + 0.1 * entropy).sum(), leaf)[0].double()

    truth = gradient(linear_logprob_reference, hidden.double(), weight.double())
    error, rounding = ((g - truth).norm() / truth.norm() for g in (gradient(linear_logprob, hidden, weight), truth.half().double()))
    print(f"{size}: {error:.2e}, of which the result's rounding {rounding:.2e}")
    assert error < rounding + torch.finfo(torch.float16).eps


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
