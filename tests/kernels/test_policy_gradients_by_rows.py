"""One factor per row in place of a pass over the kept exponentials, and the rows that it cannot serve."""

from __future__ import annotations

import pytest
import torch

from polaris_kernels import linear_policy_loss
from polaris_kernels.linear_policy_loss import function, linear_policy_loss_reference, tiled
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, SIZE, VOCABULARY = 48, 64, 330
TILES = Tiles(block_t=16, block_v=64, block_h=32, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """The Triton kernels serve the call, 20 rows at a time; the truth in float64 takes the definition."""
    monkeypatch.setattr(function, "_implementation", lambda hidden: (tiled.learn, function.handed_out))
    monkeypatch.setattr(tiled, "tiles_for", lambda hidden, head: TILES)
    monkeypatch.setattr(tiled, "chunk_rows", lambda *_: 20)


@pytest.fixture
def exactly(monkeypatch):
    """The indices of the rows that were done again."""
    seen, learn = [], tiled._learn_exactly

    def spy(work, rows):
        seen.extend(rows.tolist())
        learn(work, rows)

    monkeypatch.setattr(tiled, "_learn_exactly", spy)
    return seen


def inputs(dtype, peak=18.0):
    """Likely and unlikely targets, which are up to `peak` nats apart."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, SIZE, generator=generator)
    favourite = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    hidden = weight[favourite] * peak / weight[favourite].square().sum(1, keepdim=True) + 0.05 * torch.randn(
        ROWS, SIZE, generator=generator
    )
    targets = torch.where(torch.rand(ROWS, generator=generator) < 0.7, favourite, torch.randint(VOCABULARY, (ROWS,), generator=generator))
    advantage = torch.randn(ROWS, generator=generator)
    return [x.to(DEVICE) for x in (hidden.to(dtype), weight.to(dtype), targets, torch.full((ROWS,), -2.0), advantage)]


def gradients(operation, hidden, weight, *tokens, bias=None):
    leaves = [leaf.detach().requires_grad_() for leaf in (hidden, weight, *([] if bias is None else [bias]))]
    loss = operation(*leaves[:2], *tokens, bias=leaves[2] if bias is not None else None)
    return torch.autograd.grad(loss, leaves)


def ours(hidden, weight, *tokens, bias=None):
    return linear_policy_loss(hidden, weight, *tokens, None, 7.0, bias=bias, kind="cispo", temperature=0.9)[0]


def definition(hidden, weight, *tokens, bias=None):
    head = {"temperature": 0.9, "bias": bias}
    return linear_policy_loss_reference(hidden, weight, *tokens, None, 7.0, head=head, loss={"kind": "cispo"})[0]


def errors(values, bias=None):
    wide = [v.double() for v in values[:2]]
    truth = gradients(definition, *wide, *values[2:], bias=None if bias is None else bias.double())
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(gradients(ours, *values, bias=bias), truth, strict=True)]


@pytest.fixture
def exact_errors(monkeypatch):
    """`errors` where all rows are done exactly."""

    def found(values, bias=None):
        with monkeypatch.context() as patch:
            patch.setattr(tiled, "_learn_by_rows", lambda work, rows: torch.zeros_like(rows, dtype=torch.bool))
            return errors(values, bias)

    return found


def assert_as_exact(values, bias, exact_errors):
    """In bfloat16 hidden states times the factor of their row are rounded once more than in the exact way."""
    bounds = [1e-6, 1e-6, 1e-6] if values[0].dtype == torch.float32 else [1.3 * error for error in exact_errors(values, bias)]
    found = errors(values, bias)
    assert all(error < bound for error, bound in zip(found, bounds, strict=False)), (found, bounds)


@pytest.mark.parametrize("dressed", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_exact_as_rounding_allows(exactly, exact_errors, dtype, dressed):
    bias = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype) if dressed else None
    assert_as_exact(inputs(dtype), bias, exact_errors)
    assert len(exactly) == (0 if dtype == torch.float32 else ROWS), "only the comparison did rows again"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_whose_target_is_out_of_reach_are_done_again(exactly, exact_errors, dtype):
    """Targets of a probability near e^-60 and e^-100, one that a bias rules out, and the rest of the batch as ever."""
    hidden, weight, targets, *tokens = inputs(dtype)
    unlikely = (hidden.float() @ weight.float().T).argmin(1)
    for row, factor in ((3, 4.0), (21, 7.0)):
        hidden[row] *= factor
        targets[row] = unlikely[row]
    assert_as_exact([hidden, weight, targets, *tokens], None, exact_errors)
    assert exactly[-2:] == [3, 21]
    bias = torch.zeros(VOCABULARY, device=DEVICE, dtype=dtype)
    bias[targets[30]] = -torch.inf
    found = gradients(ours, hidden, weight, targets, *tokens, bias=bias)[0]
    assert exactly[-3:] == [3, 21, 30]
    assert found[torch.arange(ROWS, device=DEVICE) != 30].isfinite().all(), "a ratio of minus infinity is NaN in its row"


def test_a_broken_row_spoils_no_other(exactly):
    values = inputs(torch.bfloat16)
    whole = gradients(ours, *values)[0]
    values[0][20, 3] = torch.nan
    broken = gradients(ours, *values)
    others = torch.arange(ROWS, device=DEVICE) != 20
    torch.testing.assert_close(broken[0][others], whole[others])
    assert broken[0][20].isnan().all()
    assert broken[1].isnan().any()
    assert exactly == [20]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_unlikely_target_under_a_soft_cap(dtype):
    """The exponential of the target has underflowed; its logit, which the cap's slope needs, has not."""
    weight = torch.zeros(VOCABULARY, SIZE)
    weight[:, 0], weight[:, 1] = 1.0, -torch.linspace(0, 1, VOCABULARY)
    hidden = torch.zeros(1, SIZE)
    hidden[0, :2] = torch.tensor([20.0, 45.0])
    tokens = (torch.tensor([VOCABULARY // 2], device=DEVICE), torch.zeros(1, device=DEVICE), torch.ones(1, device=DEVICE), None, 1.0)
    loss = {"kind": "cispo", "clip_high": 1e9}
    found, truth = [], []
    for results, precision, operation in ((found, dtype, linear_policy_loss), (truth, torch.float64, linear_policy_loss_reference)):
        leaves = [leaf.to(DEVICE, dtype).to(precision).requires_grad_() for leaf in (hidden, weight)]
        head = {"temperature": 0.3, "softcap": 30.0}
        options = head | loss if operation is linear_policy_loss else {"head": head, "loss": loss}
        results += torch.autograd.grad(operation(*leaves, *tokens, **options)[0], leaves)
    for ours, true in zip(found, truth, strict=True):
        assert (ours.double() - true).norm() / true.norm() < (2e-3 if dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize(
    ("processors", "size", "vocabulary", "rows"),
    [
        (132, 2560, 151_936, 3328),
        (132, 4096, 151_936, 3072),
        (114, 2560, 151_936, 2816),
        (148, 2560, 151_936, 1792),
        (132, 896, 32_000, 12_672),
    ],
)
def test_chunks_fill_the_waves_of_a_device(monkeypatch, processors, size, vocabulary, rows):
    """H200, H100 PCIe and B200: blocks of 128 rows times blocks of 256 columns over the processors, within 1.05 GB."""
    monkeypatch.undo()
    tiles = Tiles(block_t=128, block_v=256, block_h=64, group=16, warps=8, stages=3, tma=True, processors=processors)
    assert tiled.chunk_rows(tiles, size, 2 * vocabulary) == rows
