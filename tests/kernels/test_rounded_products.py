"""Gradients on CPU whose products multiply bfloat16: how far they are from float64, on processors with and without such products."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polaris_kernels import linear_logprob, linear_policy_loss, products
from polaris_kernels.linear_logprob import chunked, linear_logprob_reference
from polaris_kernels.linear_policy_loss import linear_policy_loss_reference

ROUNDING = 1.66e-3
"""Error of a bfloat16 tensor of random numbers by its norm."""


@pytest.fixture(params=["bfloat16 products", "float32 products"])
def processor(request, monkeypatch):
    monkeypatch.setattr(products, "_multiplies_bfloat16", lambda: request.param == "bfloat16 products")


@pytest.fixture(params=["kept", "slab by slab"])
def memory(request, monkeypatch):
    """For all gradients of logits, or for those of 64 of the vocabulary's columns."""
    if request.param != "kept":
        monkeypatch.setattr(chunked, "_KEPT_BYTES", 0)


def inputs(rows=300, size=896, vocabulary=1500, dtype=torch.bfloat16):
    """Each row has a favourite token with a logit of 25 and a rival two nats below; three of four targets are the favourite."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(vocabulary, size, generator=generator)
    favourite, rival, other = torch.randint(vocabulary, (3, rows), generator=generator)
    hidden = 25 / size * weight[favourite] + 23 / size * weight[rival] + 2 / size**0.5 * torch.randn(rows, size, generator=generator)
    targets = torch.where(torch.rand(rows, generator=generator) < 0.75, favourite, other)
    return hidden.to(dtype), weight.to(dtype), targets, torch.randn(rows, generator=generator)


def gradients(loss, *leaves):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    return [gradient.double() for gradient in torch.autograd.grad(loss(*leaves), leaves)]


def errors(ours, truth):
    return [float((got - true).norm() / true.norm()) for got, true in zip(ours, truth, strict=True)]


def score(function, targets, up):
    def loss(hidden, weight, bias):
        logprob, entropy = function(hidden, weight, targets, temperature=0.8, bias=bias)
        return (up * (logprob + 0.1 * entropy)).sum()

    return loss


@pytest.mark.parametrize("operation", ["linear_logprob", "linear_policy_loss"])
def test_errors_of_two_or_three_roundings(processor, memory, operation):
    """That of the gradient itself, with bfloat16 products those of what is multiplied, and the factor of the loss."""
    hidden, weight, targets, up = inputs()
    leaves = [hidden, weight, torch.randn(len(weight), generator=torch.Generator().manual_seed(1)).bfloat16()]
    if operation == "linear_logprob":
        ours, definition = score(linear_logprob, targets, up), score(linear_logprob_reference, targets, up)
    else:
        behaviour = torch.full_like(up, -1.0)

        def ours(h, w, b):
            return 7 * linear_policy_loss(h, w, targets, behaviour, up, None, 300.0, temperature=0.8, bias=b)[0]

        def definition(h, w, b):
            head = {"temperature": 0.8, "bias": b}
            return 7 * linear_policy_loss_reference(h, w, targets, behaviour, up, None, 300.0, head=head, loss={})[0]

    truth = gradients(definition, *(leaf.double() for leaf in leaves))
    found, eager = errors(gradients(ours, *leaves), truth), errors(gradients(definition, *leaves), truth)
    assert max(found) < 3**0.5 * ROUNDING * 1.05, found
    assert all(error < other for error, other in zip(found, eager, strict=True)), eager


def test_repeats_bitwise_and_a_row_stands_alone(processor, memory):
    hidden, weight, targets, up = inputs()
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]

    def run(rows):
        behaviour = torch.full_like(up[rows], -1.0)
        loss, _, logprob, entropy = linear_policy_loss(leaves[0][rows], weight, targets[rows], behaviour, up[rows], None, 1.0)
        return logprob, entropy, *torch.autograd.grad(loss, leaves)

    whole = run(slice(None))
    assert all(torch.equal(a, b) for a, b in zip(run(slice(None)), whole, strict=True))
    for rows in (slice(0, 1), slice(299, 300), slice(20, 290)):
        assert all(torch.equal(a, b[rows]) for a, b in zip(run(rows)[:2], whole[:2], strict=True))


class LargestTensor(TorchDispatchMode):
    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.itemsize)
        return result


def test_nothing_is_larger_than_the_gradient_of_the_head(processor, memory):
    hidden, weight, targets, up = inputs(rows=40, size=256, vocabulary=20_000)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    with LargestTensor() as largest:
        linear_policy_loss(*leaves, targets, up, up, None, 1.0)[0].backward()
    assert largest.bytes == weight.numel() * weight.itemsize


def test_many_rows_are_summed_before_they_are_rounded(processor, memory):
    """Each of 3,000 equal rows adds 1/2 to a gradient of the head: sums in bfloat16 would stall at 256."""
    hidden = torch.ones(3000, 1, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    values = (torch.zeros(3000, dtype=torch.long), torch.full((3000,), 0.5).log(), torch.ones(3000), None, 1.0)
    linear_policy_loss(hidden, weight, *values)[0].backward()
    assert weight.grad[0].item() == -1504  # 1,500 in bfloat16
