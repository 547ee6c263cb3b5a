"""`logprob_from_logits` over the tokens that a truncating sampler kept, against transformers' samplers and float64 autograd."""

from __future__ import annotations

import importlib

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper
from triton.runtime.interpreter import InterpreterBuilder

from polaris_kernels import logprob_from_logits, pack_sampling_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = 7
FUNCTION = importlib.import_module("polaris_kernels.logprob_from_logits.function")


@pytest.fixture(params=["torch", "kernels"], autouse=True)
def serve(request, monkeypatch):
    """Plain torch or the Triton kernels; float64 by plain torch."""
    monkeypatch.setattr(FUNCTION, "uses_triton", lambda tensor: request.param == "kernels" and tensor.dtype != torch.float64)
    return request.param


def sampled(vocabulary, warper, dtype=torch.float32):
    """Logits, targets, temperature, the scaled logits that a sampler leaves in float64, and the mask, of which row 4 keeps all."""
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(ROWS, vocabulary, generator=generator)).to(dtype)
    temperature = torch.empty(ROWS).uniform_(0.6, 1.4, generator=generator)
    scaled = logits.double() / temperature.double().unsqueeze(1)
    left = warper(None, scaled)
    left[4] = scaled[4]
    targets = torch.multinomial(left.softmax(1), 1, generator=generator).squeeze(1)
    counts = left.isfinite().sum(1)
    counts[4] = 0  # as engines say that nothing was cut off
    ids = torch.cat([row.isfinite().nonzero()[:, 0].flip(0) for i, row in enumerate(left) if i != 4])
    mask = pack_sampling_mask(ids, counts, vocabulary)
    return [x.to(DEVICE) for x in (logits, targets, temperature, left, mask)]


def results(logits, targets, temperature, mask, **options):
    """Log-probs, entropies and the gradient of a weighted sum of both; row 1 has no gradient, row 3 no target."""
    leaf = logits.detach().requires_grad_()
    logprob, entropy = logprob_from_logits(leaf * 1 if options else leaf, targets, temperature, sampling_mask=mask, **options)
    slope = torch.linspace(-1, 1, ROWS, device=DEVICE, dtype=logprob.dtype).index_fill(0, torch.tensor([1], device=DEVICE), 0)
    (slope * logprob + 0.3 * slope * entropy).sum().backward()
    return logprob.detach(), entropy.detach(), leaf.grad


def truth(logits, targets, temperature, kept):
    """The same by autograd in float64."""
    leaf = logits.double().requires_grad_()
    logprobs = (leaf.masked_fill(~kept, -torch.inf) / temperature.double().unsqueeze(1)).log_softmax(1)
    ignored = targets == -100
    logprob = logprobs.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1).masked_fill(ignored, 0.0)
    entropy = -(logprobs.exp() * logprobs.masked_fill(~kept, 0.0)).sum(1).masked_fill(ignored, 0.0)
    slope = torch.linspace(-1, 1, ROWS, device=DEVICE, dtype=torch.float64).index_fill(0, torch.tensor([1], device=DEVICE), 0)
    (slope * logprob + 0.3 * slope * entropy).sum().backward()
    return logprob.detach(), entropy.detach(), leaf.grad


@pytest.mark.parametrize(
    ("vocabulary", "warper", "dtype"),
    [(208, TopKLogitsWarper(7), torch.bfloat16), (203, TopPLogitsWarper(0.8), torch.float32), (208, TopPLogitsWarper(0.8), torch.float16)],
    ids=["top-k", "odd top-p", "float16"],
)
def test_same_as_the_samplers_of_transformers(serve, warper, vocabulary, dtype):
    if serve == "kernels" and dtype == torch.bfloat16 and DEVICE == "cpu" and not hasattr(InterpreterBuilder, "get_bf16"):
        pytest.skip("this Triton's interpreter has no bfloat16 constants")
    logits, targets, temperature, left, mask = sampled(vocabulary, warper, dtype)
    targets[3] = -100
    targets[2] = left[2].argmin()  # cut off
    found, true = results(logits, targets, temperature, mask), truth(logits, targets, temperature, left.isfinite())
    assert found[0][2] == -torch.inf
    for a, b in zip(found[:2], true[:2], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found[2].double(), true[2], rtol=step, atol=max(1e-6, step / 1e3))
    assert found[2][~left.isfinite()].eq(0).all()
    assert found[2][[1, 3]].eq(0).all()
    in_place = results(logits, targets, temperature, mask, inplace_backward=True)
    assert torch.equal(in_place[2], found[2])


def test_a_cut_off_nan_and_strided_rows():
    logits, targets, temperature, left, mask = sampled(203, TopKLogitsWarper(7))
    expected = results(logits, targets, temperature, mask)
    wide = torch.full((ROWS, 224), float("nan"), device=DEVICE)
    wide[:, :203] = logits.masked_fill(~left.isfinite(), float("nan"))
    for found, same in zip(results(wide[:, :203], targets, temperature, mask), expected, strict=True):
        torch.testing.assert_close(found, same, rtol=1e-5, atol=1e-6)
    wide[6, targets[6]] = float("nan")
    logprob, entropy, _ = results(wide[:, :203], targets, temperature, mask)
    assert logprob.isnan().nonzero().flatten().tolist() == entropy.isnan().nonzero().flatten().tolist() == [6]


def test_another_mask_is_refused():
    logits, targets, temperature, _, mask = sampled(203, TopKLogitsWarper(7))
    with pytest.raises(ValueError, match=r"pass int32 \[7, 7\], one bit per token"):
        logprob_from_logits(logits, targets, temperature, sampling_mask=mask[:, :6])
