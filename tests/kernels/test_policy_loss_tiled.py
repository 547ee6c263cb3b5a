"""The Triton kernel of `policy_loss` against its definition (interpreted without a GPU)."""

from __future__ import annotations

import pytest
import torch

from polaris_kernels import PolicyLossSettings, TokenBatch, policy_loss
from polaris_kernels.policy_loss.tiled import tiled_forward
from polaris_kernels.policy_loss.totals import MAXIMA, SUMS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = torch.tensor([5, 1, 130, 0, 64])


def inputs(seed=0, spread=0.4, tokens=200):
    generator = torch.Generator().manual_seed(seed)
    logprob = -3 * torch.rand(tokens, generator=generator)
    proximal, behaviour = (logprob + scale * torch.randn(tokens, generator=generator) for scale in (spread, 0.5))
    advantage = torch.randn(tokens, generator=generator)
    mask = torch.rand(tokens, generator=generator) < 0.8
    return [x.to(DEVICE) for x in (logprob, behaviour, advantage, mask, proximal)]


def batch_of(values, lengths=None):
    _, behaviour, advantage, mask, proximal = values
    return TokenBatch(behaviour_logprob=behaviour, advantage=advantage, mask=mask, proximal_logprob=proximal, sequence_lengths=lengths)


def reference(logprob, behaviour, advantage, mask, proximal, settings):
    """Loss, totals and gradient of the definition in float64, on the CPU."""
    leaf = logprob.double().cpu().requires_grad_()
    values = [None if x is None else x.cpu() for x in (behaviour, advantage, mask, proximal)]
    options = {name: getattr(settings, name) for name in settings.__slots__}
    lengths = LENGTHS if len(logprob) == 200 else torch.tensor([len(logprob)])
    loss, totals = policy_loss(leaf, *values[:3], 1.0, proximal_logprob=values[3].double(), sequence_lengths=lengths, **options)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), [totals[name] for name in SUMS + MAXIMA], gradient


def assert_equal(values, settings):
    lengths = (LENGTHS if len(values[0]) == 200 else torch.tensor([len(values[0])])).to(DEVICE)
    loss, totals, gradient = reference(*values, settings)
    for denominator in (1.0, torch.tensor(7.0, device=DEVICE)):
        ours, found, slope = tiled_forward(values[0], batch_of(values, lengths), settings, denominator, block=64)
        torch.testing.assert_close(ours.double().cpu() * float(denominator), loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(slope.double().cpu() * float(denominator), gradient, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.cpu(), torch.stack(totals), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["dapo", "grpo", "dr_grpo", "gspo", "cispo"])
@pytest.mark.parametrize("correction", ["off", "tis", "mask"])
@pytest.mark.parametrize("masked", [True, False])
def test_same_as_the_definition(kind, correction, masked):
    values = inputs(spread=0.02 if kind == "gspo" else 0.4)
    values[1][7], values[1][9], values[1][11] = float("nan"), float("inf"), -float("inf")
    if not masked:
        values[3] = None
    narrow = {"clip_low": 0.002, "clip_high": 0.003} if kind == "gspo" else {"dual_clip": 1.5}
    assert_equal(values, PolicyLossSettings(kind=kind, correction=correction, **narrow))


def test_large_ratios_are_bounded_without_overflow():
    values = inputs()
    values[4][3:9] = values[0][3:9] - 1e4
    values[4][12:15] = values[0][12:15] + 1e4
    assert_equal(values, PolicyLossSettings(dual_clip=0))


def test_more_tokens_than_a_segment():
    values = inputs(tokens=9000)
    assert_equal(values, PolicyLossSettings(correction="tis"))


@pytest.mark.parametrize("kind", ["dapo", "grpo", "dr_grpo", "gspo", "cispo"])
def test_a_nan_of_the_trainer_reaches_loss_and_gradient(kind):
    values = inputs()
    values[0][150] = float("nan")
    values[3] = None
    loss, totals, gradient = tiled_forward(values[0], batch_of(values, LENGTHS.to(DEVICE)), PolicyLossSettings(kind=kind), block=64)
    assert loss.isnan()
    assert totals[len(SUMS)].isnan()
    if kind != "cispo":
        assert gradient[150].isnan()


def test_masked_tokens_may_hold_anything():
    values = inputs()
    settings = PolicyLossSettings(correction="tis")
    expected = tiled_forward(values[0], batch_of(values), settings, block=64)
    for tensor in (values[0], values[1], values[2], values[4]):
        tensor[~values[3]] = float("nan")
    for ours, before in zip(tiled_forward(values[0], batch_of(values), settings, block=64), expected, strict=True):
        assert torch.equal(ours, before)


def test_only_the_trained_log_probs_get_a_gradient():
    """A proximal policy that was not detached is a constant all the same; otherwise its ratio's gradient would be zero."""
    logprob, behaviour, advantage, *_ = (x.clone().requires_grad_(x.is_floating_point()) for x in inputs())
    expected = torch.autograd.grad(policy_loss(logprob, behaviour, advantage, None, 9.0, correction="tis")[0], logprob)[0]
    loss, _ = policy_loss(logprob, behaviour, advantage, None, 9.0, correction="tis", proximal_logprob=logprob)
    loss.backward()
    assert torch.equal(logprob.grad, expected)
    assert behaviour.grad is None
    assert advantage.grad is None


def test_no_tokens():
    values = [x[:0] for x in inputs()]
    loss, totals, gradient = tiled_forward(values[0], batch_of(values), PolicyLossSettings())
    assert loss == 0
    assert totals.tolist() == [0.0] * 10 + [-float("inf")] * 2
    assert gradient.shape == (0,)
    loss, metrics = policy_loss(values[0].requires_grad_(), values[1], values[2], None, 1.0)
    loss.backward()
    assert metrics["tokens"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprob": torch.zeros(2, 3)}, "packed tokens"),
        ({"logprob": torch.zeros(3).bfloat16()}, "pass float32"),
        ({"denominator": 0.0}, "denominator = 0.0 must be one number above 0"),
        ({"denominator": torch.ones(3)}, "one number"),
        ({"advantage": torch.zeros(4)}, "advantage"),
        ({"mask": torch.ones(3)}, r"mask\.bool"),
        ({"kind": "ppo"}, "dapo"),
        ({"kind": "gspo"}, "sequence_lengths"),
        ({"kind": "grpo", "sequence_lengths": torch.tensor([2, 2])}, "sum to 4"),
        ({"kind": "grpo", "sequence_lengths": torch.tensor([5, -2])}, "hold -2"),
        ({"kind": "grpo", "sequence_lengths": torch.tensor([1.0, 2.0])}, "one integer per sequence"),
        ({"clip_low": float("nan")}, "bounds"),
        ({"correction": "both"}, "tis"),
        ({"dual_clip": 0.5}, "dual_clip"),
        ({"dual_clip": 1.0}, "dual_clip"),
        ({"correction": "mask", "correction_low": 3.0}, "correction_low"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {"logprob": torch.zeros(3), "behaviour_logprob": torch.zeros(3), "advantage": torch.zeros(3), "mask": None}
    with pytest.raises(ValueError, match=message):
        policy_loss(**{"denominator": 1.0} | arguments | change)


def test_bounds_of_nothing_are_bounds():
    settings = PolicyLossSettings(clip_low=0, clip_high=0, correction="mask", correction_low=0)
    assert settings.correction_low == 0
