"""The Triton kernels of `linear_logprob`: in Triton's interpreter without a GPU, compiled with one."""

from __future__ import annotations

import math

import pytest
import torch
from head_by_kernels import tiled

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.linear_logprob.tiled import target_logits, tiled_forward, tiled_statistics
from polaris_kernels.tiles import Tiles

LOG2E = math.log2(math.e)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def small(tma: bool) -> Tiles:
    return Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=tma, merge=32)


@pytest.fixture(params=[False, True], ids=["pointers", "descriptors"])
def tiles(request):
    return small(request.param)


def inputs(rows=37, size=32, vocabulary=203, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(rows, size, generator=generator), torch.randn(vocabulary, size, generator=generator)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    temperature = torch.empty(rows).uniform_(0.6, 1.4, generator=generator)
    coefficients = torch.randn(2, rows, generator=generator)
    return hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype), targets.to(DEVICE), temperature.to(DEVICE), coefficients.to(DEVICE)


def reference(hidden, weight, targets, temperature, coefficients, dtype, **head):
    """Outputs and gradients in float64 of the definition computed in `dtype`."""
    leaves = [t.to(dtype).detach().requires_grad_() for t in (hidden, weight)]
    if "bias" in head:
        leaves.append(head["bias"].to(dtype).detach().requires_grad_())
        head = head | {"bias": leaves[2]}
    outputs = linear_logprob_reference(leaves[0], leaves[1], targets, temperature=temperature, **head)
    loss = sum((c.to(o.dtype) * o).sum() for c, o in zip(coefficients, outputs, strict=True))
    return [r.detach().double() for r in (*outputs, *torch.autograd.grad(loss, leaves))]


def assert_as_good_as_eager(ours, eager, truth, logit=20.0, relative=1e-6):
    """In nats within one unit in the last place of the largest `logit` over its temperature; gradients `relative` to their norm."""
    unit = torch.finfo(torch.float32).eps * logit
    for name, got, bound, true in zip(("logprob", "entropy", "hidden", "weight", "bias"), ours, eager, truth, strict=False):
        scale, slack = (1.0, unit) if name in ("logprob", "entropy") else (true.norm(), relative)
        error, eager_error = ((x - true).abs().max() if scale == 1.0 else (x - true).norm() / scale for x in (got, bound))
        assert error <= eager_error + slack, f"{name}: {error} against {eager_error}"


@pytest.mark.parametrize("extras", [{}, {"bias": 1, "softcap": 7.0}], ids=["plain", "bias and softcap"])
def test_no_worse_than_eager(tiles, extras):
    values = inputs()
    if extras:
        extras = extras | {"bias": torch.randn(203, generator=torch.Generator().manual_seed(1)).to(DEVICE)}
    truth, eager = (reference(*values, dtype, **extras) for dtype in (torch.float64, torch.float32))
    assert_as_good_as_eager(tiled(*values, tiles, **extras), eager, truth)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("vocabulary", [1, 31, 64, 65])
def test_odd_sizes(rows, vocabulary):
    values = inputs(rows, 16, vocabulary)
    for got, true in zip(tiled(*values, small(False)), reference(*values, torch.float64), strict=True):
        torch.testing.assert_close(got, true, rtol=1e-4, atol=5e-6)


def test_half_precision_inputs(tiles):
    values = inputs(dtype=torch.float16)
    truth, eager = (reference(*values, dtype) for dtype in (torch.float64, torch.float16))
    assert_as_good_as_eager(tiled(*values, tiles), eager, truth)


def test_result_of_a_row_depends_neither_on_the_others_nor_on_its_place(tiles):
    hidden, weight, targets, temperature, _ = inputs(rows=50)
    whole = tiled_forward(hidden, Head(weight=weight), targets, temperature, -100, tiles)
    for rows in ([0], [49], [7, 33, 8], list(range(13, 50))):
        part = tiled_forward(hidden[rows], Head(weight=weight), targets[rows], temperature[rows], -100, tiles)
        for alone, among in zip(part, whole, strict=True):
            assert torch.equal(alone, among[..., rows])


def test_bitwise_repeat(tiles):
    values = inputs()
    assert all(torch.equal(a, b) for a, b in zip(tiled(*values, tiles), tiled(*values, tiles), strict=True))


def test_every_element_is_written(tiles, monkeypatch):
    values = inputs()
    expected = tiled(*values, tiles)
    deterministic = torch.are_deterministic_algorithms_enabled()
    # In this mode torch fills every new tensor with NaN.
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3, device=DEVICE).isnan().all()
        ours = tiled(*values, tiles)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_very_negative_logits_and_certain_targets(tiles):
    hidden, weight, targets, temperature, coefficients = inputs()
    hidden[:, 0], weight[:, 0] = 100.0, -10.0  # every logit about -1000
    hidden[3] = weight[targets[3]] * 40  # one token far above the others
    values = (hidden, weight, targets, temperature, coefficients)
    truth, eager = (reference(*values, dtype) for dtype in (torch.float64, torch.float32))
    # Triton's interpreter rounds twice where a fused multiplication-addition rounds once.
    assert_as_good_as_eager(tiled(*values, tiles), eager, truth, logit=1600.0, relative=2e-5 if DEVICE == "cuda" else 8e-5)


def test_targets_to_ignore_and_targets_outside(tiles):
    hidden, weight, targets, temperature, _ = inputs()
    targets[2], targets[5], targets[9] = -100, 203, -1
    logprob, entropy, _ = tiled_forward(hidden, Head(weight=weight), targets, temperature, -100, tiles)
    assert logprob[2] == entropy[2] == 0
    assert logprob.isnan().nonzero().flatten().tolist() == [5, 9]
    assert entropy.isfinite().all()


@pytest.mark.parametrize("referred", [False, True], ids=["to the largest", "to a reference"])
def test_kept_exponentials_are_the_probabilities(tiles, referred):
    hidden, weight, targets, temperature, _ = inputs()
    truth = torch.softmax(hidden.double() @ weight.double().T / temperature.double()[:, None], 1)
    kept = torch.full((37, 208), float("nan"), device=DEVICE)[:, :203]
    reference = torch.linspace(-3, 40, 37, device=DEVICE) if referred else None
    (offset, total, moment), maxima = tiled_statistics(
        hidden, Head(weight=weight), temperature, tiles, exponentials=kept, reference=reference
    )
    chosen = target_logits(hidden, Head(weight=weight), targets, tiles)
    above = torch.zeros(1) if referred else maxima.repeat_interleave(32, 0)[:203].T - offset[:, None]
    torch.testing.assert_close((kept * torch.exp2(above.to(DEVICE)) / total[:, None]).double(), truth, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        (total.log2() - moment / total).double() * math.log(2), torch.special.entr(truth).sum(1), rtol=1e-5, atol=1e-5
    )
    logprob = (chosen * (LOG2E / temperature) - offset - total.log2()) * math.log(2)
    torch.testing.assert_close(logprob.double(), truth.gather(1, targets[:, None])[:, 0].log(), rtol=1e-5, atol=2e-5)


def test_logits_of_minus_infinity(tiles):
    """Some tokens of each row, whole tiles, the target of a row, and a row with no token at all."""
    hidden, weight, targets, temperature, coefficients = inputs()
    bias = torch.zeros(203, device=DEVICE)
    bias[5], bias[32:64], bias[targets[4]] = -torch.inf, -torch.inf, -torch.inf
    values, head = (hidden, weight, targets, temperature, coefficients), {"bias": bias}
    allowed = bias[targets].isfinite()
    truth = reference(*values, torch.float64, **head)
    coefficients[:, ~allowed] = 0  # eager's gradient of minus infinity is NaN
    gradients = tiled(*values, tiles, **head)[2:]
    ours = tiled(*values, tiles, **head)
    torch.testing.assert_close(ours[0], truth[0], rtol=1e-5, atol=1e-5)
    assert ours[0][4] == -torch.inf
    assert all(gradient.isfinite().all() for gradient in gradients)
    logprob, entropy, _ = tiled_forward(hidden, Head(weight=weight, bias=bias - torch.inf), targets, temperature, -100, tiles)
    assert logprob.isnan().all()
    assert entropy.isnan().all()


def test_a_soft_cap_hides_no_nan(tiles):
    hidden, weight, targets, temperature, _ = inputs()
    hidden[1, 2] = torch.nan
    logprob, entropy, _ = tiled_forward(hidden, Head(weight=weight, softcap=7.0), targets, temperature, -100, tiles)
    assert logprob.isnan().nonzero().flatten().tolist() == entropy.isnan().nonzero().flatten().tolist() == [1]


def test_a_soft_cap_at_a_low_temperature(tiles):
    """Log-probs down to -1,400, where the targets' gradients still know their logits."""
    hidden, weight, targets, temperature, coefficients = inputs()
    values = (hidden, weight, targets, torch.full_like(temperature, 0.01), coefficients)
    ours, truth = tiled(*values, tiles, softcap=7.0), reference(*values, torch.float64, softcap=7.0)
    for name, found, true in zip(("hidden", "weight"), ours[2:], truth[2:], strict=True):
        assert (found - true).norm() / true.norm() < 1e-3, name


def test_logits_that_rounding_takes_to_infinity(tiles):
    hidden, weight, targets, temperature, _ = inputs()
    hidden[:, 0], weight[:, 0], weight[3, 0] = 100.0, 0.0, -1000.0
    targets[targets == 3] = 4
    head = Head(weight=weight, logits_dtype=torch.float16)
    logprob, entropy, _ = tiled_forward(hidden, head, targets, temperature, -100, tiles)
    true = linear_logprob_reference(hidden, weight, targets, temperature=temperature, logits_dtype=torch.float16)
    torch.testing.assert_close(logprob, true[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropy, true[1], rtol=1e-4, atol=1e-4)
