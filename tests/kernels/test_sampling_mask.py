"""Log-probs over the tokens that a truncating sampler kept, against transformers' samplers and full logits in float64."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from polaris_kernels import linear_logprob, linear_policy_loss, pack_sampling_mask, policy_loss
from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.linear_policy_loss import tiled
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, SIZE = 21, 32
TILES = Tiles(block_t=16, block_v=64, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
LINEAR = [importlib.import_module(f"polaris_kernels.{name}.function") for name in ("linear_logprob", "linear_policy_loss")]


@pytest.fixture(params=["torch", "kernels"])
def serve(request, monkeypatch):
    """Plain torch or the Triton kernels; float64, in which plain torch tells the truth, by plain torch."""
    for module in LINEAR:
        monkeypatch.setattr(module, "uses_triton", lambda tensor: request.param == "kernels" and tensor.dtype != torch.float64)
    for module in (LINEAR[0], tiled):
        monkeypatch.setattr(module, "tiles_for", lambda hidden, head: TILES)
    monkeypatch.setattr(tiled, "chunk_rows", lambda *_: 16)


def sampled(vocabulary, warper, seed=0):
    """Hidden states, weight, temperature, the logits that a sampler leaves, a target from these, the mask; row 4 is whole."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(ROWS, SIZE, generator=generator) / 3, torch.randn(vocabulary, SIZE, generator=generator)
    temperature = torch.empty(ROWS).uniform_(0.6, 1.2, generator=generator)
    logits = (hidden.double() @ weight.double().T) / temperature.double().unsqueeze(1)
    left = warper(None, logits)
    left[4] = logits[4]
    targets = torch.multinomial(left.softmax(1), 1, generator=generator).squeeze(1)
    ids = left.isfinite().nonzero()[:, 1]
    counts = left.isfinite().sum(1)
    counts[4], ids = 0, torch.cat([left[row].isfinite().nonzero()[:, 0].flip(0) for row in range(ROWS) if row != 4])
    mask = pack_sampling_mask(ids, counts, vocabulary)
    return [x.to(DEVICE) for x in (hidden, weight, temperature, left, targets, mask)]


@pytest.mark.parametrize("warper", [TopKLogitsWarper(7), TopPLogitsWarper(0.8)], ids=["top-k", "top-p"])
@pytest.mark.parametrize("vocabulary", [192, 203])
def test_same_as_the_samplers_of_transformers(serve, warper, vocabulary):
    hidden, weight, temperature, left, targets, mask = sampled(vocabulary, warper)
    expected = left.log_softmax(1)
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=temperature, sampling_mask=mask)
    torch.testing.assert_close(logprob.double(), expected.gather(1, targets.unsqueeze(1)).squeeze(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), torch.special.entr(expected.exp()).sum(1), rtol=1e-5, atol=1e-5)


def gradients(function, hidden, weight, targets, sampling_mask, **options):
    leaves = [leaf.detach().requires_grad_() for leaf in (hidden, weight)]
    logprob, entropy = function(*leaves, targets, sampling_mask=sampling_mask, **options)
    slope = torch.linspace(-1, 1, ROWS, device=DEVICE, dtype=logprob.dtype)
    return torch.autograd.grad((slope * logprob + 0.3 * slope.flip(0) * entropy).sum(), leaves)


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}], ids=["plain", "softcap"])
def test_gradients(serve, options):
    hidden, weight, temperature, _, targets, mask = sampled(203, TopPLogitsWarper(0.8))
    ours = gradients(linear_logprob, hidden, weight, targets, mask, temperature=temperature, **options)
    wide = hidden.double(), weight.double()
    truth = gradients(linear_logprob_reference, *wide, targets, mask, temperature=temperature, **options)
    for found, true in zip(ours, truth, strict=True):
        assert (found.double() - true).norm() / true.norm() < 1e-5
    assert ours[1][~torch.zeros(203, dtype=torch.bool).index_fill(0, targets.cpu(), True).to(DEVICE)].abs().max() > 0


def test_a_mask_of_all_tokens_changes_no_bit(serve):
    """Triton's interpreter sums a tile in the order in which numpy happened to lay it out."""
    hidden, weight, temperature, _, targets, _ = sampled(203, TopKLogitsWarper(7))
    interpreted = DEVICE == "cpu" and LINEAR[0].uses_triton(hidden)
    everything = torch.full((ROWS, 7), -1, dtype=torch.int32, device=DEVICE)
    for function in (linear_logprob, functools.partial(gradients, linear_logprob)):
        whole, same = (function(hidden, weight, targets, sampling_mask=mask, temperature=temperature) for mask in (None, everything))
        for a, b in zip(whole, same, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6 if interpreted else 0, atol=1e-6 if interpreted else 0)


def test_a_target_that_was_cut_off(serve):
    hidden, weight, temperature, left, targets, mask = sampled(203, TopKLogitsWarper(7))
    targets[2] = left[2].argmin()
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=temperature, sampling_mask=mask)
    assert logprob[2] == -torch.inf
    assert logprob[torch.arange(ROWS, device=DEVICE) != 2].isfinite().all()
    assert entropy.isfinite().all()
    ours = gradients(linear_logprob, hidden, weight, targets, mask, temperature=temperature)
    truth = gradients(linear_logprob_reference, hidden.double(), weight.double(), targets, mask, temperature=temperature)
    for found, true in zip(ours, truth, strict=True):
        assert (found.double() - true).norm() / true.norm() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_policy_loss_of_both_routes(serve, dtype):
    """In one go, and by the two operations; float16 takes the exact way of the kernels."""
    hidden, weight, temperature, _, targets, mask = sampled(203, TopPLogitsWarper(0.8))
    behaviour, advantage = torch.full((ROWS,), -1.5, device=DEVICE), torch.linspace(-1, 1, ROWS, device=DEVICE)
    advantage[5] = 0.0  # scored without a gradient
    tokens, options = (behaviour, advantage, None, 5.0), {"kind": "cispo", "correction": "tis"}

    def fused(h, w):
        return linear_policy_loss(h, w, targets, *tokens, temperature=temperature, sampling_mask=mask, **options)

    def apart(h, w):
        logprob, entropy = linear_logprob_reference(h, w, targets, temperature=temperature, sampling_mask=mask)
        return *policy_loss(logprob, *tokens, **options), logprob, entropy

    results = []
    for function, inputs in (
        (fused, (hidden.to(dtype), weight.to(dtype))),
        (apart, (hidden.to(dtype).double(), weight.to(dtype).double())),
    ):
        leaves = [leaf.detach().requires_grad_() for leaf in inputs]
        loss, _, logprob, entropy = function(*leaves)
        results.append([x.detach().double() for x in (logprob, entropy, *torch.autograd.grad(loss, leaves))])
    for found, true in zip(*results, strict=True):
        assert (found - true).norm() / true.norm() < (1e-5 if dtype == torch.float32 else 1e-3)


def test_what_is_refused():
    hidden, weight, _, _, targets, mask = sampled(203, TopKLogitsWarper(7))
    with pytest.raises(ValueError, match=r"sampling_mask is torch.bool \(21, 203\); pass int32 \[21, 7\], one bit per token"):
        linear_logprob(hidden, weight, targets, sampling_mask=torch.ones(ROWS, 203, dtype=torch.bool, device=DEVICE))
    with pytest.raises(ValueError, match="counts sum to 3, but there are 2 ids"):
        pack_sampling_mask(torch.tensor([1, 2]), torch.tensor([3]), 5)
    with pytest.raises(ValueError, match=r"ids span 1 to 7, outside \[0, 5\)"):
        pack_sampling_mask(torch.tensor([1, 7]), torch.tensor([2]), 5)
    assert mask.dtype == torch.int32


def test_packing_is_the_bitmask_of_single_bits():
    ids, counts = torch.tensor([31, 0, 31, 32, 202, 5]), torch.tensor([3, 0, 2, 1])
    packed = pack_sampling_mask(ids, counts, 203)
    found = [[j for j in range(224) if int(row[j // 32]) >> j % 32 & 1] for row in packed]
    assert found == [[0, 31], list(range(224)), [32, 202], [5]]


def test_packing_for_a_ranks_columns_keeps_what_lies_there():
    """Whole rows stay whole, and a row of which nothing lies there is empty, not whole; also for no columns and no tokens."""
    ids, counts = torch.tensor([31, 0, 31, 32, 202, 5]), torch.tensor([3, 0, 2, 1])
    whole = [[j for j in range(203) if int(row[j // 32]) >> j % 32 & 1] for row in pack_sampling_mask(ids, counts, 203)]
    for first, last in ((0, 32), (31, 100), (6, 31), (50, 50), (100, 203)):
        packed = pack_sampling_mask(ids, counts, 203, columns=(first, last))
        assert packed.shape == (4, -(-(last - first) // 32))
        found = [[first + j for j in range(last - first) if int(row[j // 32]) >> j % 32 & 1] for row in packed]
        assert found == [[j for j in row if first <= j < last] for row in whole]
    assert pack_sampling_mask(ids[:0], counts[:0], 203).shape == (0, 7)
    with pytest.raises(ValueError, match=r"columns = \(100, 204\) are not within \[0, 203\]"):
        pack_sampling_mask(ids, counts, 203, columns=(100, 204))
