"""`linear_policy_loss` against the two operations it replaces, in plain torch and by the Triton kernels."""

from __future__ import annotations

import pytest
import torch

from polaris_kernels import linear_logprob, linear_policy_loss, policy_loss
from polaris_kernels.linear_logprob import chunked as head_chunked
from polaris_kernels.linear_policy_loss import function, linear_policy_loss_reference, tiled
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [9, 1, 20, 7]


def inputs(dtype=torch.float32, size=32, vocabulary=203, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = sum(LENGTHS)
    hidden, weight = torch.randn(rows, size, generator=generator), torch.randn(vocabulary, size, generator=generator)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    behaviour = -6 * torch.rand(rows, generator=generator)
    advantage = torch.randn(4, generator=generator).repeat_interleave(torch.tensor(LENGTHS))
    advantage[9:14] = 0
    mask = torch.rand(rows, generator=generator) < 0.8
    temperature = torch.empty(rows).uniform_(0.6, 1.4, generator=generator)
    tokens = [x.to(DEVICE) for x in (targets, behaviour, advantage, mask)]
    return [hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype), *tokens], temperature.to(DEVICE)


def two_operations(hidden, weight, targets, behaviour, advantage, mask, denominator, *, temperature, bias=None, softcap=None, **loss):
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=temperature, bias=bias, softcap=softcap)
    value, totals = policy_loss(logprob, behaviour, advantage, mask, denominator, **loss)
    mask = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    return value, totals, logprob.detach().where(mask, 0.0), entropy.detach().where(mask, 0.0)


def results(operation, values, **options):
    hidden, weight, *rest = values
    leaves = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
    if options.get("bias") is not None:
        leaves.append(options["bias"].detach().requires_grad_())
        options["bias"] = leaves[2]
    loss, totals, logprob, entropy = operation(*leaves[:2], *rest, 17.0, **options)
    gradients = torch.autograd.grad(3 * loss, leaves)
    return [loss.detach(), logprob, entropy, *totals.values(), *gradients]


def assert_close(ours, expected, **tolerance):
    for got, true in zip(ours, expected, strict=True):
        torch.testing.assert_close(got.double(), true.double(), **tolerance)


@pytest.fixture(params=["kept", "twice"])
def tiny_chunks(request, monkeypatch):
    """Chunks of a few rows and columns; the gradients of the logits are kept for the backward, or the logits worked out twice."""
    monkeypatch.setattr(head_chunked, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(head_chunked, "_SLAB_COLUMNS", 50)
    if request.param == "twice":
        monkeypatch.setattr(head_chunked, "_KEPT_BYTES", 0)


@pytest.fixture
def kernels(monkeypatch):
    """The Triton kernels serve the call, at small tiles."""
    tiles = Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)

    monkeypatch.setattr(function, "_implementation", lambda hidden: (tiled.learn, function.handed_out))
    monkeypatch.setattr(tiled, "tiles_for", lambda hidden, head: tiles)
    monkeypatch.setattr(tiled, "chunk_rows", lambda *_: 16)


EVERY = pytest.mark.parametrize("kind", ["dapo", "grpo", "dr_grpo", "cispo"])


def options_of(kind, temperature, proximal):
    options = {"kind": kind, "correction": "tis", "temperature": temperature, "sequence_lengths": torch.tensor(LENGTHS, device=DEVICE)}
    return options | ({"proximal_logprob": proximal} if proximal is not None else {})


@EVERY
@pytest.mark.parametrize("first", [True, False], ids=["first update", "later update"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_same_as_the_two_operations(tiny_chunks, kind, first, masked):
    values, temperature = inputs()
    values[5] = values[5] if masked else None
    options = options_of(kind, temperature, None if first else values[3] + 0.1)
    assert_close(results(linear_policy_loss, values, **options), results(two_operations, values, **options), rtol=1e-5, atol=1e-6)


@EVERY
def test_kernels_same_as_the_two_operations(kernels, kind):
    values, temperature = inputs()
    options = options_of(kind, temperature, values[3] + 0.1)
    assert_close(results(linear_policy_loss, values, **options), results(two_operations, values, **options), rtol=1e-5, atol=1e-5)


def test_kernels_with_bias_and_softcap(kernels):
    values, temperature = inputs()
    bias = torch.randn(203, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    options = options_of("dapo", temperature, None) | {"bias": bias, "softcap": 7.0}
    assert_close(results(linear_policy_loss, values, **options), results(two_operations, values, **options), rtol=1e-4, atol=1e-5)


def test_torch_with_bias_and_softcap(tiny_chunks):
    values, temperature = inputs()
    bias = torch.randn(203, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    options = options_of("dapo", temperature, None) | {"bias": bias, "softcap": 7.0}
    assert_close(results(linear_policy_loss, values, **options), results(two_operations, values, **options), rtol=1e-5, atol=1e-6)


def test_finite_differences(tiny_chunks):
    values, _ = inputs(torch.float64, 5, 11)
    hidden, weight, targets, behaviour, advantage, mask = values
    proximal = behaviour.double() + 0.01

    def loss(h, w):
        return linear_policy_loss(h, w, targets, behaviour.double(), advantage.double(), mask, 5.0, proximal_logprob=proximal)[0]

    assert torch.autograd.gradcheck(loss, (hidden.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("serve", ["torch", "kernels"])
def test_half_precision_is_no_worse_than_eager(serve, request):
    if serve == "kernels":
        request.getfixturevalue("kernels")
    values, temperature = inputs(torch.float16)
    head, loss = {"temperature": temperature}, {"correction": "tis"}

    def definition(h, w, t, b, a, m, d, dtype):
        value, _ = linear_policy_loss_reference(h.to(dtype), w.to(dtype), t, b.to(dtype), a.to(dtype), m, d, head=head, loss=loss)
        return value

    def gradients(function, *extra):
        leaves = [v.detach().requires_grad_() for v in values[:2]]
        return [g.double() for g in torch.autograd.grad(function(*leaves, *values[2:], 17.0, *extra), leaves)]

    truth, eager = gradients(definition, torch.float64), gradients(definition, torch.float16)
    ours = gradients(lambda *arguments: linear_policy_loss(*arguments, temperature=temperature, **loss)[0])
    for got, bound, true in zip(ours, eager, truth, strict=True):
        assert (got - true).norm() <= (bound - true).norm() + 1e-6 * true.norm()


def test_certain_tokens_keep_their_digits(kernels):
    values, temperature = inputs()
    hidden, weight, targets = values[:3]
    hidden += 6 * weight[targets] / weight[targets].norm(dim=1, keepdim=True)
    options = options_of("dapo", temperature, None)
    assert_close(results(linear_policy_loss, values, **options), results(two_operations, values, **options), rtol=1e-4, atol=1e-6)


def products_backwards(monkeypatch):
    """The rows of every product of the backward with the head, as they come."""
    module, name = (tiled, "product") if DEVICE == "cuda" else (head_chunked, "rounded_product")
    seen, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda left, right, *out: seen.append(len(left)) or original(left, right, *out))
    return seen


def test_tokens_without_advantage_are_not_multiplied_backwards(monkeypatch):
    values, temperature = inputs()
    values[5] = None
    seen = products_backwards(monkeypatch)
    results(linear_policy_loss, values, **options_of("dapo", temperature, None))
    assert sum(rows for rows in seen if rows < 203) == int((values[4] != 0).sum())


def test_without_gradients_nothing_is_multiplied_backwards(monkeypatch):
    values, temperature = inputs()
    seen = products_backwards(monkeypatch)
    with torch.no_grad():
        linear_policy_loss(values[0].requires_grad_(), *values[1:], 17.0, **options_of("dapo", temperature, None))
    assert not any(seen)


def test_gspo_takes_the_two_operations_and_says_so():
    values, temperature = inputs()
    options = options_of("gspo", temperature, values[3] + 0.001)
    with pytest.warns(UserWarning, match="whole sequences"):
        ours = results(linear_policy_loss, values, **options)
    assert_close(ours, results(two_operations, values, **options), rtol=1e-5, atol=1e-6)


def test_targets_to_ignore_are_outside_of_the_mask():
    values, temperature = inputs()
    options = options_of("dapo", temperature, None)
    expected = results(linear_policy_loss, values, **options)
    marked = list(values)
    marked[2], marked[5] = values[2].masked_fill(~values[5], -100), None
    assert_close(results(linear_policy_loss, marked, **options), expected, rtol=0, atol=0)


def test_no_tokens():
    values, temperature = inputs()
    empty = [values[0][:0].requires_grad_(), values[1].requires_grad_(), *(v[:0] for v in values[2:])]
    loss, totals, logprob, _ = linear_policy_loss(*empty, 1.0, temperature=temperature[:0])
    loss.backward()
    assert totals["tokens"] == 0
    assert logprob.shape == (0,)
    assert empty[1].grad.eq(0).all()


def test_a_token_does_not_depend_on_its_neighbours():
    values, temperature = inputs(vocabulary=20_000)
    values[5] = None
    whole = linear_policy_loss(*values, 17.0, temperature=temperature)
    for rows in (slice(0, 1), slice(36, 37), slice(3, 20)):
        part = [value if index == 1 or value is None else value[rows] for index, value in enumerate(values)]
        for alone, among in zip(linear_policy_loss(*part, 17.0, temperature=temperature[rows])[2:], whole[2:], strict=True):
            assert torch.equal(alone, among[rows])


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (1, lambda weight: weight[:, :-1], r"needs hidden \[T, H\]"),
        (1, lambda weight: weight.double(), "cast all to one"),
        (3, lambda behaviour: torch.cat([behaviour, behaviour]), "behaviour_logprob has shape"),
        (4, lambda advantage: advantage[:5], "advantage has shape"),
        (5, lambda mask: torch.cat([mask, mask]), "mask has shape"),
        (5, lambda mask: mask.float(), r"mask\.bool"),
    ],
)
def test_tokens_that_do_not_fit_are_named(place, change, message):
    values, _ = inputs()
    values[place] = change(values[place])
    with pytest.raises(ValueError, match=message):
        linear_policy_loss(*values, 1.0)


def test_grpo_needs_the_sequences():
    values, _ = inputs()
    with pytest.raises(ValueError, match="sequence_lengths"):
        linear_policy_loss(*values, 1.0, kind="grpo")


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_changed_after_the_forward_does_not_change_the_gradients(monkeypatch, kept):
    monkeypatch.setattr(head_chunked, "_KEPT_BYTES", 2**30 if kept else 0)
    values, temperature = inputs()
    hidden = values[0].detach().requires_grad_()
    loss = linear_policy_loss(hidden, *values[1:], 17.0, temperature=temperature)[0]
    (expected,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    values[2].copy_(values[2].flip(0))
    temperature.mul_(2)
    assert torch.equal(torch.autograd.grad(loss, hidden)[0], expected)
