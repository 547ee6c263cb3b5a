"""`logprob_from_logits` in plain torch and by its Triton kernels (interpreted without a GPU)."""

from __future__ import annotations

import pytest
import torch
from triton._C.libtriton import interpreter

from polaris_kernels import logprob_from_logits
from polaris_kernels.logprob_from_logits import logprob_from_logits_reference, tiled
from polaris_kernels.logprob_from_logits.tiled import Shape, tiled_backward, tiled_forward
from polaris_kernels.rows import Rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS_ONCE = pytest.mark.skipif(
    DEVICE == "cpu" and not hasattr(interpreter, "fma_fp32"), reason="this Triton's interpreter rounds an fma twice"
)
SMALL = Shape(threads=8, bytes=32)
"""Blocks of 64 float32 or 128 half-precision logits."""


def inputs(rows=9, vocabulary=208, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(rows, vocabulary, generator=generator)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    temperature = torch.empty(rows).uniform_(0.6, 1.4, generator=generator)
    coefficients = torch.randn(2, rows, generator=generator)
    return logits.to(DEVICE, dtype), targets.to(DEVICE), temperature.to(DEVICE), coefficients.to(DEVICE)


def results(function, logits, targets, temperature, coefficients, dtype=None):
    """Log-probs, entropies and the gradient of their weighted sum, in float64."""
    leaf = logits.detach().to(dtype or logits.dtype).clone().requires_grad_()
    outputs = function(leaf, targets, temperature)
    loss = sum((c.to(o.dtype) * o).sum() for c, o in zip(coefficients, outputs, strict=True))
    return [r.detach().double() for r in (*outputs, *torch.autograd.grad(loss, leaf))]


def kernels(logits, targets, temperature, coefficients, shape=SMALL, inplace=False):
    logprob, entropy, (maximum, log_total) = tiled_forward(logits, targets, temperature, -100, shape)
    values = {"targets": targets, "temperature": temperature, "maximum": maximum, "log_total": log_total, "logprob": logprob}
    gradient = logits if inplace else torch.full_like(logits, float("nan"))
    rows = Rows(**values, entropy=entropy, logprob_gradient=coefficients[0], entropy_gradient=coefficients[1])
    tiled_backward(logits, gradient, rows, -100, shape)
    return [r.double() for r in (logprob, entropy, gradient)]


def assert_as_good_as_eager(ours, eager, truth):
    for got, bound, true in zip(ours, eager, truth, strict=True):
        assert (got - true).abs().max() <= (bound - true).abs().max() + 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_torch_is_no_worse_than_eager(dtype):
    values = inputs(dtype=dtype)
    truth, eager = (results(logprob_from_logits_reference, *values, dtype=d) for d in (torch.float64, dtype))
    assert_as_good_as_eager(results(logprob_from_logits, *values), eager, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_are_no_worse_than_eager(dtype):
    values = inputs(dtype=dtype)
    truth, eager = (results(logprob_from_logits_reference, *values, dtype=d) for d in (torch.float64, dtype))
    assert_as_good_as_eager(kernels(*values), eager, truth)


@pytest.mark.parametrize("rows", [1, 4, 5])
@pytest.mark.parametrize("vocabulary", [1, 64, 65])
def test_odd_sizes(rows, vocabulary):
    values = inputs(rows, vocabulary)
    truth = results(logprob_from_logits_reference, *values, dtype=torch.float64)
    for ours in (kernels(*values), results(logprob_from_logits, *values)):
        for got, true in zip(ours, truth, strict=True):
            torch.testing.assert_close(got, true, rtol=1e-5, atol=5e-6)


def test_gradcheck():
    logits, targets, temperature, _ = inputs(7, 11, torch.float64)
    targets[3] = -100
    assert torch.autograd.gradcheck(lambda x: logprob_from_logits(x, targets, temperature), logits.requires_grad_())


def test_operator_is_registered_in_full():
    logits, targets, temperature, _ = inputs(7, 11)
    torch.library.opcheck(
        torch.ops.polaris_kernels.logprob_from_logits.default, (logits.requires_grad_(), targets, temperature, None, -100, False)
    )


def test_in_place_gradient_takes_the_memory_of_the_logits():
    logits, targets, temperature, coefficients = inputs()
    expected = results(logprob_from_logits, logits, targets, temperature, coefficients)
    kept = logits.clone().requires_grad_()
    scaled = kept * 1.0
    logprob, entropy = logprob_from_logits(scaled, targets, temperature, inplace_backward=True)
    before = scaled.data_ptr()
    (coefficients[0] * logprob + coefficients[1] * entropy).sum().backward()
    assert torch.equal(kept.grad.double(), expected[2])
    assert scaled.data_ptr() == before
    assert torch.equal(scaled.detach(), kept.grad)
    own = logits.clone()
    torch.testing.assert_close(kernels(own, targets, temperature, coefficients, inplace=True)[2], expected[2], rtol=1e-5, atol=1e-6)


def test_rows_of_a_wider_tensor_are_read_where_they_are():
    logits, targets, temperature, coefficients = inputs(20, 64)
    wide = torch.zeros(20, 80, device=DEVICE)
    wide[:, :64] = logits
    expected = results(logprob_from_logits, logits, targets, temperature, coefficients)
    for ours in (results(logprob_from_logits, wide[:, :64], targets, temperature, coefficients),):
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    with pytest.raises(ValueError, match="contiguous"):
        logprob_from_logits(logits.T, targets.new_zeros(64), 1.0, inplace_backward=True)


def test_rows_that_share_memory():
    logits, targets, temperature, coefficients = inputs()
    row = logits[:1].detach().requires_grad_()
    logprob, entropy = logprob_from_logits(row.expand(9, 208), targets, temperature)
    (coefficients[0] * logprob + coefficients[1] * entropy).sum().backward()
    expected = results(logprob_from_logits, logits[:1].repeat(9, 1), targets, temperature, coefficients)
    torch.testing.assert_close(row.grad.double(), expected[2].sum(0, keepdim=True), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="apart"):
        logprob_from_logits(row.expand(9, 208), targets, temperature, inplace_backward=True)


def test_rows_to_ignore_and_targets_outside():
    logits, targets, temperature, coefficients = inputs()
    targets[2] = -100
    logprob, entropy, gradient = results(logprob_from_logits, logits, targets, temperature, coefficients)
    assert logprob[2] == entropy[2] == 0
    assert gradient[2].eq(0).all()
    assert gradient[3].ne(0).any()
    targets[5] = 208
    logprob, entropy, _ = tiled_forward(logits, targets, temperature, -100, SMALL)
    assert logprob[2] == entropy[2] == 0
    assert logprob.isnan().nonzero().flatten().tolist() == [5]
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match="outside"):
            logprob_from_logits(logits, targets, temperature)


def test_very_negative_and_impossible_tokens():
    logits, targets, temperature, coefficients = inputs()
    logits -= 1000
    logits[:, 7] = -torch.inf
    targets[targets == 7] = 8
    truth = torch.log_softmax(logits.double() / temperature.double()[:, None], 1)
    expected = truth.gather(1, targets[:, None])[:, 0]
    for ours in (
        kernels(logits, targets, temperature, coefficients),
        results(logprob_from_logits, logits, targets, temperature, coefficients),
    ):
        torch.testing.assert_close(ours[0], expected, rtol=1e-5, atol=1e-5)
        assert all(r.isfinite().all() for r in ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_masks_and_of_broken_logits(dtype):
    """What stands for "impossible" costs nothing; what has no softmax is NaN, and its neighbours do not see it."""
    logits, targets, temperature, coefficients = inputs(9, 208, dtype)
    whole = kernels(logits, targets, temperature, coefficients)
    masked = torch.arange(208, device=DEVICE) >= 100
    masked[targets[:3]] = False
    for row, low in enumerate((-torch.inf, torch.finfo(dtype).min, -3e4)):
        logits[row, masked] = low
    logits[3] = -torch.inf
    logits[4, 7] = torch.nan
    logits[5, 7] = torch.inf
    logits[6, targets[6]] = -torch.inf
    logprob, entropy, gradient = kernels(logits, targets, temperature, coefficients)
    kept = [0, 1, 2]
    truth = results(logprob_from_logits_reference, logits.float().clamp(min=-1e4), targets, temperature, coefficients, torch.float64)
    for ours, true in zip((logprob, entropy, gradient), truth, strict=True):
        torch.testing.assert_close(ours[kept], true[kept], rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-5)
    assert logprob[6] == -torch.inf
    assert entropy[6].isfinite()
    assert gradient[6].isfinite().all()
    for ours, before in zip((logprob, entropy, gradient), whole, strict=True):
        assert ours[3:6].isnan().all()
        assert torch.equal(ours[7:], before[7:])


@pytest.mark.parametrize("offset", [-4e9, pytest.param(1e5, marks=ROUNDS_ONCE)])
def test_an_offset_of_all_logits_changes_nothing(offset):
    """Up to 1e5 the logits themselves keep some digits; at 4e9 hardly any is left, or the row has no softmax here."""
    logits, targets, temperature, coefficients = inputs()
    logits = (logits.round() if abs(offset) < 1e6 else logits.sign() * 4096) + offset
    truth = results(logprob_from_logits_reference, logits, targets, temperature, coefficients, torch.float64)
    for ours, true in zip(kernels(logits, targets, temperature, coefficients), truth, strict=True):
        if abs(offset) < 1e6:
            torch.testing.assert_close(ours, true, rtol=1e-5, atol=1e-5)
        else:
            assert ours.isnan().all()


@pytest.mark.parametrize("inplace", [False, True])
def test_a_row_in_parts_gives_the_same_gradient(inplace, monkeypatch):
    """Few rows are divided among programs; the target may lie in any part, also in the one that fills no block."""
    logits, targets, temperature, coefficients = inputs(7, 208)
    targets[:4] = torch.tensor([0, 63, 64, 207])
    coefficients[:, 5] = 0
    targets[6] = -100
    together = kernels(logits, targets, temperature, coefficients)[2]
    assert together[5:].eq(0).all()
    for programs in (1, 14, 21):
        monkeypatch.setattr(tiled, "_PROGRAMS", programs)
        own = logits.clone()
        own[5:] = torch.nan if not inplace else own[5:]
        found = kernels(own, targets, temperature, coefficients, inplace=inplace)[2]
        assert torch.equal(found, together)


@pytest.mark.parametrize(("columns", "stride", "offset"), [(203, 208, 0), (200, 203, 0), (200, 208, 3), (203, 203, 1)])
def test_any_layout_of_the_rows(columns, stride, offset):
    """Rows that begin at multiples of 16 bytes and others take different loads, and neither writes beside the rows."""
    logits, targets, temperature, coefficients = inputs(7, columns)
    memory = torch.full((offset + 7 * stride,), 5.0, device=DEVICE)
    rows = memory[offset:].view(7, stride)[:, :columns]
    rows.copy_(logits)
    expected = kernels(logits, targets, temperature, coefficients)
    found = kernels(rows, targets, temperature, coefficients, inplace=True)
    for ours, same in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-5, atol=2e-6)
    assert memory[:offset].eq(5).all()
    assert memory[offset:].view(7, stride)[:, columns:].eq(5).all()


def test_a_row_does_not_depend_on_the_others():
    logits, targets, temperature, coefficients = inputs()
    whole = kernels(logits, targets, temperature, coefficients)
    for rows in ([8], [7, 3, 6]):
        alone = kernels(logits[rows], targets[rows], temperature[rows], coefficients[:, rows])
        assert all(torch.equal(a, b[rows]) for a, b in zip(alone, whole, strict=True))


def test_no_rows():
    logits, targets, temperature, _ = inputs()
    logprob, entropy = logprob_from_logits(logits[:0], targets[:0], temperature[:0])
    assert logprob.shape == entropy.shape == (0,)


def test_same_numbers_as_trl():
    trl = pytest.importorskip("trl.trainer.utils")
    logits, targets, _, _ = inputs(40, 300)
    logprob, entropy = logprob_from_logits(logits, targets, 0.7)
    torch.testing.assert_close(logprob, trl.selective_log_softmax(logits, targets, temperature=0.7), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, trl.entropy_from_logits(logits / 0.7), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(3, 2, 8)}, r"logits\.flatten"),
        ({"logits": torch.zeros(3, 8, dtype=torch.int64)}, "floating-point"),
        ({"logits": torch.zeros(3, 8, dtype=torch.float8_e4m3fn)}, "floating-point"),
        ({"targets": torch.tensor([0, 1])}, "one integer per row"),
        ({"targets": torch.tensor([0, 8, 1])}, "outside"),
        ({"temperature": 0.0}, "above 0"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {"logits": torch.zeros(3, 8), "targets": torch.tensor([0, 1, 2]), "temperature": 1.0}
    with pytest.raises(ValueError, match=message):
        logprob_from_logits(**arguments | change)
