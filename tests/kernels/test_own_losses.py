"""Losses, weights, corrections and KL terms that no kernel knows: the definition in torch, on every device, and what a kernel refuses."""

from __future__ import annotations

import importlib

import pytest
import torch

from polaris_kernels import PolicyLoss, PolicyLossSettings, TokenBatch, TokenLoss, linear_policy_loss, policy_loss
from polaris_kernels.linear_logprob import chunked
from polaris_kernels.policy_loss import tiled
from polaris_kernels.policy_loss.base import sequence_mean

LENGTHS = [9, 1, 20, 7]
ROWS, SIZE, VOCABULARY = sum(LENGTHS), 24, 131


def quadratic(batch, settings):
    """Not linear in the advantage, and not zero where it is."""
    return (batch.ratio() - 1 - batch.advantage).square() - 0.1 * batch.logprob


def with_floor(batch, settings):
    ratio = batch.ratio().detach()
    low = ratio < 0.9
    never = torch.zeros_like(low)
    loss = -ratio.clamp(0.9, 1 + settings.clip_high) * batch.advantage * batch.logprob
    return TokenLoss(loss=loss, ratio=ratio, clip_low=low, clip_high=never, clip_dual=never)


def of_the_tokens(batch, settings):
    return -batch.advantage * batch.logprob * batch.temperature * (1 + batch.targets)


def of_whole_sequences(batch, settings):
    return sequence_mean(batch, batch.logprob - batch.proximal()).exp()[batch.sequences()[1]] * batch.advantage


OWN = [
    PolicyLoss(name="quadratic", token_loss=quadratic),
    PolicyLoss(name="mean of means", token_loss=quadratic, aggregate="sequence"),
    PolicyLoss(name="with a floor", token_loss=with_floor, aggregate="constant"),
    PolicyLoss(name="of sequences", token_loss=of_whole_sequences, of_sequences=True),
]


@pytest.fixture(params=["torch", "as on CUDA"])
def served(request, monkeypatch):
    """In small chunks; "as on CUDA" Triton serves float32, and its kernel of the loss may not be reached."""
    monkeypatch.setattr(chunked, "_BLOCK_ROWS", 16)
    if request.param == "as on CUDA":
        monkeypatch.setattr(importlib.import_module("polaris_kernels.policy_loss.function"), "uses_triton", lambda tensor: True)
        monkeypatch.setattr(tiled, "loss_kernel", None)


def tokens(seed=0):
    """float64 hidden states, weight and targets; and the keywords of the loss."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    advantage = random(4).repeat_interleave(torch.tensor(LENGTHS))
    advantage[9:14] = 0
    values = {"behaviour_logprob": -5 + random(ROWS), "proximal_logprob": -5 + random(ROWS) / 2, "advantage": advantage}
    values |= {"mask": torch.rand(ROWS, generator=generator) < 0.8, "reference_logprob": -5 + random(ROWS)}
    values |= {"weight": torch.rand(ROWS, generator=generator, dtype=torch.float64), "sequence_lengths": torch.tensor(LENGTHS)}
    hidden, weight = random(ROWS, SIZE) / 2, random(VOCABULARY, SIZE) / 2
    return [hidden, weight], torch.randint(VOCABULARY, (ROWS,), generator=generator), values


def plain(leaves, targets, values, loss, *, correction=None, kl=0.0, weighted=False):
    """The sum over tokens by full logits and autograd, with nothing of ours but the loss itself."""
    logprob = (leaves[0] @ leaves[1].T).log_softmax(1).gather(1, targets[:, None])[:, 0]
    kept = values["mask"]
    owner = torch.arange(4).repeat_interleave(values["sequence_lengths"])[kept]
    lengths = torch.bincount(owner, minlength=4)
    parts = {name: value[kept] for name, value in values.items() if name not in ("mask", "sequence_lengths", "weight")}
    batch = TokenBatch(logprob=logprob[kept], sequence_lengths=lengths, **parts)
    found = loss.token_loss(batch, PolicyLossSettings(kind=loss))
    terms = found.loss if isinstance(found, TokenLoss) else found
    if correction is not None:
        terms = terms * correction((batch.proximal_logprob - batch.behaviour_logprob).split(lengths.tolist()))
    gap = batch.reference_logprob - batch.logprob
    terms = terms + kl * (gap.exp() - 1 - gap)
    if weighted:
        terms = terms * values["weight"][kept]
    elif loss.aggregate == "sequence":
        terms = terms / lengths[owner]
    return terms.sum() / 17.0


def product_capped(gaps):
    return torch.cat([gap.sum().exp().clamp(max=2.0).expand(len(gap)) for gap in gaps])


def near_in_the_mean(gaps):
    return torch.cat([torch.full_like(gap, float(0.5 <= gap.mean().exp() <= 1.5)) for gap in gaps])


VARIANTS = [
    ({}, {}),
    ({"kl": 0.3}, {"kl": 0.3}),
    ({"kl": 0.3, "weight": True}, {"kl": 0.3, "weighted": True}),
    ({"correction": "sequence_tis", "kl": 0.1}, {"correction": product_capped, "kl": 0.1}),
    ({"correction": "geometric_mask", "correction_low": 0.5, "correction_high": 1.5}, {"correction": near_in_the_mean}),
]


@pytest.mark.parametrize("loss", OWN, ids=lambda loss: loss.name)
@pytest.mark.parametrize(("options", "truth"), VARIANTS, ids=["alone", "kl", "kl, weight", "sequence_tis, kl", "geometric_mask"])
@pytest.mark.filterwarnings("ignore:kind")
def test_value_and_gradient_are_those_of_autograd_through_full_logits(served, loss, options, truth):
    leaves, targets, values = tokens()
    leaves = [leaf.requires_grad_() for leaf in leaves]
    expected = plain(leaves, targets, values, loss, **truth)
    given = {name: value for name, value in values.items() if name != "weight"}
    settings = {name: value for name, value in options.items() if name != "weight"} | {"kind": loss}
    weight = values["weight"] if "weight" in options else None
    fused, totals, logprob, _ = linear_policy_loss(*leaves, targets, denominator=17.0, token_weight=weight, **given, **settings)
    leaf = logprob.detach().requires_grad_()
    alone, _ = policy_loss(leaf, denominator=17.0, weight=weight, **given, **settings)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(alone, expected)
    true = torch.autograd.grad(expected, leaves)
    for got, gradient in zip(torch.autograd.grad(fused, leaves), true, strict=True):
        torch.testing.assert_close(got, gradient)
    assert torch.autograd.grad(alone, leaf)[0].count_nonzero() > 0
    assert totals["tokens"] == values["mask"].sum()
    assert (totals["masked"] > 0) == ("geometric_mask" in options.values())
    assert (totals["truncated"] > 0) == ("sequence_tis" in options.values())
    gap = (values["reference_logprob"] - logprob)[values["mask"]]
    torch.testing.assert_close(totals["kl_reference_k1"], -gap.sum())
    torch.testing.assert_close(totals["kl_reference_k3"], (gap.exp() - 1 - gap).sum())


@pytest.mark.parametrize("kind", ["dapo", "grpo", "dr_grpo", "gspo", "cispo"])
@pytest.mark.filterwarnings("ignore:kind")
def test_a_built_in_loss_with_a_reference_learns_where_the_advantage_is_zero(served, kind):
    leaves, targets, values = tokens()
    values["advantage"].zero_()
    leaves = [leaf.requires_grad_() for leaf in leaves]
    weight = values.pop("weight") if kind == "cispo" else None  # in place of no share at all
    values.pop("weight", None)
    loss = linear_policy_loss(*leaves, targets, denominator=17.0, kind=kind, kl=0.5, token_weight=weight, **values)[0]
    share = "sequence" if kind in ("grpo", "gspo") else "token"
    nothing = PolicyLoss(name="nothing", token_loss=lambda batch, settings: 0 * batch.logprob, aggregate=share)
    expected = plain(leaves, targets, values | {"weight": weight}, nothing, kl=0.5, weighted=weight is not None)
    torch.testing.assert_close(loss, expected)
    for got, true in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(got, true)


@pytest.mark.parametrize("of_sequences", [False, True])
@pytest.mark.filterwarnings("ignore:kind")
def test_a_loss_sees_which_tokens_it_has_and_at_which_temperature(served, of_sequences):
    leaves, targets, values = tokens()
    temperature = torch.linspace(0.5, 1.5, ROWS, dtype=torch.float64)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    loss = own(of_the_tokens, of_sequences=of_sequences)
    values.pop("weight")
    found = linear_policy_loss(*leaves, targets, denominator=1.0, temperature=temperature, kind=loss, **values)[0]
    logits = leaves[0] @ leaves[1].T / temperature[:, None]
    logprob = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    expected = (-values["advantage"] * logprob * temperature * (1 + targets))[values["mask"]].sum()
    torch.testing.assert_close(found, expected)
    for got, true in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(got, true)


@pytest.mark.parametrize(("gap", "slope"), [(-100.0, 1.0), (-1.0, 1 - 0.36787944), (5.0, 1 - 148.4131591), (25.0, 0.0), (100.0, 0.0)])
def test_k3_never_pushes_away_from_a_reference_that_is_far_above(gap, slope):
    """Where exp is cut there is no gradient; half of it, that of -d, would lower a log-prob that the reference wants higher."""
    logprob = torch.full((1,), -101.0, dtype=torch.float64, requires_grad=True)
    loss, _ = policy_loss(logprob, logprob.detach(), torch.zeros(1), None, 1.0, kl=1.0, reference_logprob=torch.full((1,), gap - 101.0))
    torch.testing.assert_close(torch.autograd.grad(loss, logprob)[0], torch.full((1,), slope, dtype=torch.float64))


def flat(**change):
    values = {"logprob": torch.zeros(3, requires_grad=True), "behaviour_logprob": torch.zeros(3), "advantage": torch.ones(3), "mask": None}
    return values | {"denominator": 1.0} | change


def own(function, **options):
    return PolicyLoss(name="mine", token_loss=function, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ppo"}, "none of dapo, grpo, dr_grpo, gspo, cispo; for a loss of your own pass a PolicyLoss"),
        ({"kind": own(lambda batch, settings: batch.logprob.sum())}, r"'mine' gave \(\); it must give one term per token, \(3,\)"),
        ({"kind": own(lambda batch, settings: None)}, "'mine' gave NoneType"),
        ({"kind": own(lambda batch, settings: batch.logprob.detach())}, "'mine' has no gradient"),
        ({"kind": own(quadratic, aggregate="sequence")}, 'kind = "mine" needs sequence_lengths'),
        ({"correction": "geometric_mask"}, 'correction = "geometric_mask" needs sequence_lengths'),
        ({"kl": 0.1}, "needs reference_logprob"),
        ({"kl": -0.1}, "must not be negative"),
        ({"reference_logprob": torch.zeros(4)}, "reference_logprob has shape"),
        ({"weight": torch.zeros(4)}, "weight has shape"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        policy_loss(**flat(**change))


@pytest.mark.parametrize("names", [{"kind": "ppo"}, {"correction": "both"}])
def test_the_kernel_refuses_what_it_does_not_know(names):
    """Compiled or interpreted, its last branch is no home for every other name."""
    settings = PolicyLossSettings(correction="mask")
    for name, value in names.items():
        object.__setattr__(settings, name, value)
    batch = TokenBatch(behaviour_logprob=torch.zeros(3), advantage=torch.ones(3))
    with pytest.raises(Exception, match=r"does not know this (KIND|CORRECTION)"):  # Triton has several
        tiled.tiled_forward(torch.zeros(3), batch, settings)


def test_a_loss_is_not_asked_about_no_tokens():
    loss = own(lambda batch, settings: batch.logprob - batch.logprob.max())
    empty = torch.zeros(0, requires_grad=True)
    value, totals = policy_loss(empty, empty.detach(), empty.detach(), None, 1.0, kind=loss)
    value.backward()
    assert value == totals["tokens"] == 0
