"""float16 gradients keep their digits however small they are: what the loss is divided by does not show in them."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch

from polaris_kernels import linear_logprob, linear_policy_loss
from polaris_kernels.linear_logprob import chunked, linear_logprob_reference
from polaris_kernels.linear_policy_loss import function, linear_policy_loss_reference, tiled
from polaris_kernels.ranges import power_of_two
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPSILON = torch.finfo(torch.float16).eps
ROWS, SIZE, VOCABULARY = 48, 64, 2500
TILES = Tiles(block_t=16, block_v=512, block_h=64, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)


@pytest.fixture(params=["torch", "kernels"])
def serve(request, monkeypatch):
    """Plain torch or the Triton kernels, in chunks of 16 rows."""
    module = importlib.import_module("polaris_kernels.linear_logprob.function")
    for patched in (module, function):
        monkeypatch.setattr(patched, "uses_triton", lambda tensor: request.param == "kernels" and tensor.dtype != torch.float64)
    for patched in (module, tiled):
        monkeypatch.setattr(patched, "tiles_for", lambda hidden, head: TILES)
    monkeypatch.setattr(chunked, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(tiled, "chunk_rows", lambda *_: 16)


def inputs(seed=0):
    """Likely and unlikely tokens, thousands with probabilities below 1e-6, advantages of three sizes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(VOCABULARY, SIZE, generator=generator)
    favourite = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    hidden = weight[favourite] * 18 / weight[favourite].square().sum(1, keepdim=True) + 0.05 * torch.randn(ROWS, SIZE, generator=generator)
    targets = torch.where(torch.rand(ROWS, generator=generator) < 0.7, favourite, torch.randint(VOCABULARY, (ROWS,), generator=generator))
    advantage = torch.randn(ROWS, generator=generator) * torch.tensor([1e-3, 1.0, 30.0]).repeat_interleave(ROWS // 3)
    return [x.to(DEVICE) for x in (hidden.half(), weight.half(), targets, torch.full((ROWS,), -2.0), advantage)]


def errors(ours, truth):
    return [float((got.double() - true).norm() / true.norm()) for got, true in zip(ours, truth, strict=True)]


def gradients(loss, *leaves):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    return torch.autograd.grad(loss(*leaves), leaves)


@pytest.mark.parametrize("denominator", [1.0, 1e3, 1e6, 1e7])
@pytest.mark.parametrize("dressed", [False, True], ids=["plain, growing", "bias and softcap, shrinking"])
def test_the_denominator_does_not_show(serve, denominator, dressed):
    """The loss is multiplied before the backward, as by a GradScaler, so that its gradients fit float16 whatever the denominator."""
    hidden, weight, targets, behaviour, advantage = inputs()
    leaves, options = [hidden, weight], {"temperature": 0.9}
    if dressed:
        advantage = advantage.flip(0)
        leaves.append(torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)).half().to(DEVICE))
        options["softcap"] = 30.0
    tokens, scale = (targets, behaviour, advantage, None), 4 * denominator

    def ours(h, w, bias=None):
        return scale * linear_policy_loss(h, w, *tokens, denominator, bias=bias, kind="dr_grpo", **options)[0]

    def definition(h, w, bias=None):
        head = options | {"bias": bias}
        return scale * linear_policy_loss_reference(h, w, *tokens, denominator, head=head, loss={"kind": "dr_grpo"})[0]

    found = errors(gradients(ours, *leaves), gradients(definition, *(leaf.double() for leaf in leaves)))
    assert max(found) < EPSILON, found


def test_a_scale_beyond_float16():
    """65,536, where a GradScaler begins, is infinite in float16."""
    hidden, weight, *tokens = inputs()
    for scale in (2.0**16, 2.0**20 / 3):
        ours = gradients(lambda h, w, s=scale: s * linear_policy_loss(h, w, *tokens, None, 1e6)[0], hidden, weight)
        truth = gradients(
            lambda h, w, s=scale: s * linear_policy_loss_reference(h, w, *tokens, None, 1e6, head={}, loss={})[0],
            hidden.double(),
            weight.double(),
        )
        assert max(errors(ours, truth)) < EPSILON


@pytest.mark.parametrize("size", [1e-5, 1e-7])
@pytest.mark.parametrize("large", ["hidden", "weight"])
def test_small_gradients_of_log_prob_and_entropy(serve, size, large):
    """The gradients of logits are below float16's range; those of hidden states, or of the weight, are not: the other is large."""
    hidden, weight, targets, _, advantage = inputs()
    factor = 512.0 if large == "weight" else 1 / 512  # a power of two: the logits stay what they are
    hidden, weight = hidden / factor, weight * factor
    coefficients = size * advantage / 30

    def loss(function, h, w):
        logprob, entropy = function(h, w, targets, temperature=0.9)
        return (coefficients * (logprob + 0.1 * entropy)).sum()

    place = ("weight", "hidden").index(large)
    ours = gradients(functools.partial(loss, linear_logprob), hidden, weight)[place]
    truth = gradients(functools.partial(loss, linear_logprob_reference), hidden.double(), weight.double())[place]
    found = (ours.double() - truth).norm() / truth.norm()
    # What is left is the rounding of the result itself.
    rounding = (truth.half().double() - truth).norm() / truth.norm()
    assert found < rounding + EPSILON


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_row_changes_no_other_row(serve, bad):
    hidden, weight, *tokens = inputs()

    def loss(h, w):
        return linear_policy_loss(h, w, *tokens, None, 1.0, kind="dr_grpo")[0] + linear_logprob(h, w, tokens[0])[0].sum()

    whole = gradients(loss, hidden, weight)[0]
    hidden[20, 3] = bad
    broken = gradients(loss, hidden, weight)
    others = torch.arange(ROWS, device=DEVICE) != 20
    torch.testing.assert_close(broken[0][others], whole[others], rtol=EPSILON, atol=0)
    assert broken[0][20].isnan().any()
    assert broken[1].isnan().any()


def test_no_token_with_an_advantage(serve):
    hidden, weight, targets, behaviour, advantage = inputs()
    for rows in (slice(0, 0), slice(0, 5)):
        tokens = (targets[rows], behaviour[rows], torch.zeros_like(advantage[rows]), None)
        ours = gradients(lambda h, w, t=tokens: linear_policy_loss(h, w, *t, 1e6)[0] * 65536, hidden[rows], weight)
        ours += gradients(lambda h, w, t=tokens: (linear_logprob(h, w, t[0])[0] * 0).sum(), hidden[rows], weight)
        assert all(g.eq(0).all() for g in ours)


def test_powers_of_two_are_exact_and_fit():
    values = torch.cat([torch.tensor([1.0, 1.5, 1.9999999]) * 2.0**exponent for exponent in range(-45, 70, 5)]).to(DEVICE)
    scales = power_of_two(values)
    assert (scales.frexp().mantissa == 0.5).all()
    assert ((values * scales >= 2.0**14) & (values * scales < 2.0**15)).all()
    edges = power_of_two(torch.tensor([0.0, 1e-42, float("inf"), float("nan")], device=DEVICE))
    assert edges.tolist() == [2.0**60, 2.0**60, 2.0**-60, 2.0**-60]
