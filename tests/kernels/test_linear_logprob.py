from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polaris_kernels import linear_logprob, softmax
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import chunked, function, linear_logprob_reference
from polaris_kernels.rows import Rows

QWEN3_VOCABULARY = 151_936


def inputs(rows: int, size: int, vocabulary: int, dtype: torch.dtype = torch.float32, peak: float = 5.0, seed: int = 0):
    """Hidden states that give one token of each row a logit of about `peak`, with half of the targets on that token."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, size, generator=generator)
    favourite = torch.randint(vocabulary, (rows,), generator=generator)
    hidden = weight[favourite] * peak / weight[favourite].square().sum(1, keepdim=True)
    hidden += 0.05 * torch.randn(rows, size, generator=generator)
    targets = torch.where(torch.arange(rows) % 2 == 0, favourite, torch.randint(vocabulary, (rows,), generator=generator))
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def gradients(function, hidden, weight, targets, temperature, coefficients):
    """Outputs, and gradients of sum(coefficients[0] * logprob + coefficients[1] * entropy), all in float64."""
    hidden, weight = hidden.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    outputs = function(hidden, weight, targets, temperature=temperature)
    loss = sum((coefficient.to(output.dtype) * output).sum() for coefficient, output in zip(coefficients, outputs, strict=True))
    results = [*outputs, *torch.autograd.grad(loss, (hidden, weight))]
    return [result.detach().double() for result in results]


@pytest.fixture(params=["kept", "slab by slab"])
def tiny_chunks(request, monkeypatch):
    """Chunks of a few rows and columns; the backward has all gradients of logits at once, or those of a slab."""
    monkeypatch.setattr(chunked, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(chunked, "_SLAB_COLUMNS", 8)
    if request.param != "kept":
        monkeypatch.setattr(chunked, "_KEPT_BYTES", 0)


@pytest.mark.parametrize("temperature", [0.7, "per token"])
@pytest.mark.parametrize("outputs", ["logprob", "entropy", "both"])
def test_gradcheck(tiny_chunks, monkeypatch, temperature, outputs):
    monkeypatch.setattr(chunked, "_BLOCK_ROWS", 4)
    hidden, weight, targets = inputs(7, 4, 11, torch.float64)
    if temperature == "per token":
        temperature = torch.linspace(0.5, 1.5, 7)
    keep = {"logprob": slice(0, 1), "entropy": slice(1, 2), "both": slice(0, 2)}[outputs]
    assert torch.autograd.gradcheck(lambda h, w: linear_logprob(h, w, targets, temperature=temperature)[keep], (hidden, weight))


def test_gradcheck_of_bias_and_softcap(tiny_chunks, monkeypatch):
    monkeypatch.setattr(chunked, "_BLOCK_ROWS", 4)
    hidden, weight, targets = inputs(7, 4, 11, torch.float64)
    bias = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    targets[4] = -100

    def function(h, w, b):
        return linear_logprob(h, w, targets, temperature=0.8, bias=b, softcap=3.0)

    assert torch.autograd.gradcheck(function, (hidden, weight, bias))


def test_operator_is_registered_in_full(tiny_chunks):
    hidden, weight, targets = inputs(19, 5, 11)
    arguments = (hidden, weight, targets, torch.ones(19), None, None, 0.0, None, -100, True, True)
    torch.library.opcheck(torch.ops.polaris_kernels.linear_logprob.default, arguments)


def test_compiled_without_a_graph_break(tiny_chunks):
    hidden, weight, targets = inputs(19, 5, 11)

    def loss(h, w):
        logprob, entropy = linear_logprob(h, w, targets, temperature=0.8)
        return (logprob + 0.1 * entropy).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(hidden, weight), (hidden, weight))
    for got, true in zip(torch.autograd.grad(compiled(hidden, weight), (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(got, true)


def test_rows_to_ignore_are_zero_and_touch_nothing():
    hidden, weight, targets = inputs(9, 8, 50)
    ignored = torch.arange(9) % 3 == 0
    kept = [t.detach().clone().requires_grad_() for t in (hidden, weight)]
    logprob, entropy = linear_logprob(hidden, weight, targets.masked_fill(ignored, -100), temperature=1.0)
    (logprob.sum() + entropy.sum()).backward()
    expected = linear_logprob(kept[0][~ignored], kept[1], targets[~ignored], temperature=1.0)
    (expected[0].sum() + expected[1].sum()).backward()
    assert logprob[ignored].eq(0).all()
    assert entropy[ignored].eq(0).all()
    assert torch.equal(logprob[~ignored], expected[0])
    assert torch.equal(hidden.grad, kept[0].grad)
    torch.testing.assert_close(weight.grad, kept[1].grad)


@pytest.mark.parametrize("logits_dtype", [torch.bfloat16, torch.float16])
def test_logits_are_rounded_as_an_engine_rounds_them(logits_dtype):
    hidden, weight, targets = inputs(12, 16, 300, peak=20.0)
    logits = (hidden @ weight.T).to(logits_dtype).double() / 0.7
    logprob, _ = linear_logprob(hidden, weight, targets, temperature=0.7, logits_dtype=logits_dtype)
    torch.testing.assert_close(logprob.double(), logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    exact, _ = linear_logprob(hidden, weight, targets, temperature=0.7)
    assert (exact - logprob).abs().max() > 1e-4


@pytest.mark.parametrize("logits_dtype", [torch.float32, torch.float64])
def test_a_float32_request_rounds_nothing(logits_dtype):
    values = (*inputs(12, 16, 300, torch.bfloat16), 0.7, torch.ones(2, 12))
    results = [gradients(partial(linear_logprob, logits_dtype=dtype), *values) for dtype in (None, logits_dtype)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("peak", [20.0, 30.0])
def test_no_worse_than_eager_at_the_vocabulary_of_qwen3(dtype, peak):
    hidden, weight, targets = inputs(6, 64, QWEN3_VOCABULARY, dtype, peak)
    temperature = torch.tensor([1.0, 1.4, 0.6, 1.0, 1.2, 0.9])
    coefficients = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    truth = gradients(linear_logprob_reference, hidden.double(), weight.double(), targets, temperature.double(), coefficients)
    eager = gradients(linear_logprob_reference, hidden, weight, targets, temperature, coefficients)
    ours = gradients(linear_logprob, hidden, weight, targets, temperature, coefficients)
    for name, true, bound, got in zip(("logprob", "entropy", "hidden", "weight"), truth, eager, ours, strict=True):
        scale = 1.0 if name in ("logprob", "entropy") else true.norm()
        error, eager_error = (got - true).norm() / scale, (bound - true).norm() / scale
        assert error <= eager_error + 1e-6, f"{name}: {error} against {eager_error}"
    assert (ours[0] - truth[0]).abs().max() < 1e-4


@pytest.mark.parametrize("peak", [20.0, 30.0])
def test_a_few_likely_tokens_among_the_vocabulary_of_qwen3(peak):
    """Logits of a trained model: a peak, rivals within two nats, entropies of 0.2 to 1.2."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(QWEN3_VOCABULARY, 256, generator=generator).bfloat16()
    likely = torch.randint(QWEN3_VOCABULARY, (8, 3), generator=generator)
    logits = peak - torch.tensor([[0.0, 1.8, 1.9], [0.0, 1.0, 2.0]]).repeat(4, 1)
    # The hidden states whose products with the three tokens are these logits.
    hidden = (torch.linalg.pinv(weight[likely].float()) @ logits[..., None]).squeeze(2).bfloat16()
    targets = likely.gather(1, torch.arange(8)[:, None] % 3).squeeze(1)
    logprob, entropy = linear_logprob(hidden, weight, targets)
    true_logprob, true_entropy = linear_logprob_reference(hidden.double(), weight.double(), targets)
    assert 0.2 < true_entropy.min() < true_entropy.max() < 1.2
    assert (logprob - true_logprob).abs().max() < 1e-4
    assert (entropy - true_entropy).abs().max() < 1e-4


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 33])
@pytest.mark.parametrize("vocabulary", [1, 2, 97, 1000])
def test_odd_sizes(tiny_chunks, rows, vocabulary):
    hidden, weight, targets = inputs(rows, 13, vocabulary)
    coefficients = torch.randn(2, rows, generator=torch.Generator().manual_seed(1))
    truth = gradients(linear_logprob_reference, hidden.double(), weight.double(), targets, 0.8, coefficients)
    ours = gradients(linear_logprob, hidden, weight, targets, 0.8, coefficients)
    for true, got in zip(truth, ours, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-5, atol=5e-6)


def test_no_rows():
    hidden, weight, targets = inputs(3, 5, 7)
    logprob, entropy = linear_logprob(hidden[:0], weight, targets[:0], temperature=1.0)
    (logprob.sum() + entropy.sum()).backward()
    assert logprob.shape == entropy.shape == (0,)
    assert weight.grad.eq(0).all()


def test_more_rows_than_sixteen_bits_count():
    values = (*inputs(65_537, 4, 33), 0.9, torch.ones(2, 65_537))
    for ours, true in zip(gradients(linear_logprob, *values), gradients(linear_logprob_reference, *values), strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-4, atol=1e-4)


def test_rows_of_very_negative_logits_stay_finite():
    hidden, weight, targets = torch.full((4, 8), -100.0), torch.rand(50, 8) + 1, torch.arange(4)
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=1.0)
    truth = linear_logprob_reference(hidden.double(), weight.double(), targets, temperature=1.0)
    torch.testing.assert_close(logprob.double(), truth[0], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(entropy.double(), truth[1], rtol=1e-3, atol=1e-4)


def test_same_numbers_as_trl():
    trl = pytest.importorskip("trl.trainer.utils")
    hidden, weight, targets = inputs(40, 16, 300)
    logits = hidden.detach() @ weight.detach().T
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=0.7)
    torch.testing.assert_close(logprob.detach(), trl.selective_log_softmax(logits, targets, temperature=0.7), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.detach(), trl.entropy_from_logits(logits / 0.7), rtol=1e-5, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_grows_with_rows_times_vocabulary(tiny_chunks, monkeypatch):
    monkeypatch.setattr(chunked, "_KEPT_BYTES", 0)
    rows, size, vocabulary = 200, 4, 1000
    hidden, weight, targets = (tensor.detach() for tensor in inputs(rows, size, vocabulary))
    ones, head = torch.ones(rows), Head(weight=weight)
    with LargestTensor() as largest:
        logprob, entropy, (maximum, log_total) = chunked.chunked_forward(hidden, head, targets, ones, -100, True)
        values = {"targets": targets, "temperature": ones, "maximum": maximum, "log_total": log_total, "logprob": logprob}
        rows = Rows(**values, entropy=entropy, logprob_gradient=ones, entropy_gradient=ones)
        chunked.chunked_backward(hidden, head, rows, True)
    assert largest.elements == vocabulary * size  # the gradient of the weight


def test_chunk_is_bounded_at_every_vocabulary():
    for vocabulary in (64, 32_000, QWEN3_VOCABULARY, 262_144):
        assert 16 <= softmax.rows_per_chunk(vocabulary) <= 256
        assert softmax.rows_per_chunk(vocabulary) * vocabulary * 4 <= 2**27


@pytest.mark.parametrize("vocabulary", [97, 20_000])
def test_result_of_a_row_does_not_depend_on_its_neighbours(vocabulary):
    hidden, weight, targets = inputs(23, 24, vocabulary)
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=1.0)
    for rows in (slice(0, 1), slice(22, 23), slice(3, 12)):
        alone = linear_logprob(hidden[rows], weight, targets[rows], temperature=1.0)
        assert torch.equal(alone[0], logprob[rows])
        assert torch.equal(alone[1], entropy[rows])


@pytest.mark.parametrize(
    ("kept_rows", "dead", "again"),
    [(0, slice(10, 95), [15]), (100, slice(10, 95), []), (32, slice(10, 20), [16, 16, 16, 16, 10])],
    ids=["no logits kept", "all kept", "those of two blocks kept"],
)
def test_logits_of_live_rows_are_made_again_unless_they_were_kept(monkeypatch, tiny_chunks, kept_rows, dead, again):
    hidden, weight, targets = inputs(100, 8, 50, torch.float64)
    bias = torch.linspace(-1, 1, 50, dtype=torch.float64)
    coefficients = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    coefficients[:, dead] = 0
    options = {"bias": bias, "softcap": 20.0}
    truth = gradients(partial(linear_logprob_reference, **options), hidden, weight, targets, 0.8, coefficients)
    computed = []
    original = chunked.chunk_logits
    monkeypatch.setattr(chunked, "chunk_logits", lambda h, *rest: computed.append(len(h)) or original(h, *rest))
    monkeypatch.setattr(function, "rows_to_keep", lambda hidden, weight: kept_rows)
    ours = gradients(partial(linear_logprob, **options), hidden, weight, targets, 0.8, coefficients)
    assert computed == ([16] * 7) * 7 + again * 7  # seven slabs of at most 8 columns; a block of which some rows were kept is made again
    assert ours[2][dead].eq(0).all()
    for true, got in zip(truth, ours, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-9, atol=1e-12)


def test_logits_are_kept_within_bounds_and_only_for_a_backward(monkeypatch):
    assert chunked.rows_to_keep(torch.empty(2048, 8, device="meta"), torch.empty(QWEN3_VOCABULARY, 8, device="meta")) == 512  # of 552
    hidden, weight, targets = inputs(20, 8, 50)
    kept = []
    original = function.chunked_forward
    monkeypatch.setattr(function, "chunked_forward", lambda *arguments: kept.append(arguments[-1].shape) or original(*arguments))
    linear_logprob(hidden, weight, targets)
    with torch.no_grad():
        linear_logprob(hidden, weight, targets)
    linear_logprob(hidden.detach(), weight.detach(), targets)
    assert kept == [(20, 50), (0, 50), (0, 50)]


def test_a_head_without_rows():
    hidden, weight = torch.ones(3, 4, requires_grad=True), torch.ones(0, 4, requires_grad=True)
    logprob, entropy = linear_logprob(hidden, weight, torch.full((3,), -100))
    (logprob + entropy).sum().backward()
    assert all(values.eq(0).all() for values in (logprob, entropy, hidden.grad))
    assert weight.grad.shape == (0, 4)


def test_a_nan_gradient_is_not_taken_for_zero():
    hidden, weight, targets = inputs(4, 8, 50)
    linear_logprob(hidden, weight, targets, temperature=1.0)[0].backward(torch.tensor([0.0, float("nan"), 0.0, 0.0]))
    assert hidden.grad[1].isnan().all()
    assert hidden.grad[0].eq(0).all()


def test_bitwise_repeat():
    hidden, weight, targets = inputs(70, 32, 5000, torch.bfloat16)
    coefficients = torch.ones(2, 70)
    first, second = (gradients(linear_logprob, hidden, weight, targets, 1.0, coefficients) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_weight_and_no_entropy():
    hidden, weight, targets = inputs(9, 8, 50)
    weight = weight.detach()
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=1.0, return_entropy=False)
    assert entropy is None
    logprob.sum().backward()
    expected = gradients(linear_logprob_reference, hidden, weight, targets, 1.0, (torch.ones(9), torch.zeros(9)))[2]
    torch.testing.assert_close(hidden.grad.double(), expected, rtol=1e-5, atol=1e-6)


def test_weight_gradient_is_summed_in_float32(tiny_chunks):
    rows = 3200
    hidden = torch.ones(rows, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    linear_logprob(hidden, weight, torch.zeros(rows, dtype=torch.long), temperature=1.0)[0].sum().backward()
    assert weight.grad[0].item() == rows / 2  # a bfloat16 sum over 200 chunks would stall long before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 50, 1])}, "outside"),
        ({"targets": torch.tensor([0, -1, 1])}, "outside"),
        ({"targets": torch.tensor([0.0, 1.0, 2.0])}, "integer"),
        ({"targets": torch.tensor([True, False, True])}, "integer"),
        ({"bias": torch.zeros(3)}, "bias"),
        ({"bias": torch.zeros(50).half()}, "one floating-point dtype"),
        ({"softcap": -1.0}, "softcap"),
        ({"softcap": float("inf")}, "softcap"),
        ({"logits_dtype": torch.int64}, "logits_dtype"),
        ({"targets": torch.tensor([0, 1])}, "targets"),
        ({"weight": torch.zeros(50, 7)}, "weight"),
        ({"weight": torch.zeros(50, 8, dtype=torch.bfloat16)}, r"the torch\.bfloat16 tensors themselves .* summed in float32"),
        ({"weight": torch.zeros(50, 8, dtype=torch.float64)}, "one floating-point dtype$"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
        ({"temperature": torch.tensor([1.0, float("inf"), 1.0])}, "finite number above 0"),
        ({"temperature": torch.ones(2)}, "one value per row"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {"hidden": torch.zeros(3, 8), "weight": torch.zeros(50, 8), "targets": torch.tensor([0, 1, 2]), "temperature": 1.0}
    with pytest.raises(ValueError, match=message):
        linear_logprob(**arguments | change)


def test_autocast_changes_nothing():
    hidden, weight, targets = inputs(40, 16, 90)
    expected = gradients(linear_logprob, hidden, weight, targets, 0.7, (torch.ones(40), torch.ones(40)))
    with torch.autocast("cpu", torch.bfloat16):
        actual = gradients(linear_logprob, hidden, weight, targets, 0.7, (torch.ones(40), torch.ones(40)))
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
