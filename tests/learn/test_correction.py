from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objectives import Tokens, objective

from polaris.config.algorithm import AlgorithmConfig
from polaris_kernels import PolicyLossSettings, TokenBatch
from polaris_kernels.policy_loss.correction import importance_correction

RATIOS = torch.tensor([0.1, 0.5, 1.0, 1.9, 5.0], dtype=torch.float64)
OLD = torch.full_like(RATIOS, -2.0)
BEHAVIOUR = OLD - RATIOS.log()


def corrected(proximal, behaviour, lengths=None, **settings):
    batch = TokenBatch(behaviour_logprob=behaviour, advantage=behaviour, proximal_logprob=proximal, sequence_lengths=lengths)
    return importance_correction(batch, PolicyLossSettings(**settings))


def test_off_ignores_the_engine():
    correction = corrected(OLD, BEHAVIOUR.where(RATIOS != 1, math.nan), correction="off")
    assert correction.weight.eq(1).all()
    assert correction.nonfinite.tolist() == [False, False, True, False, False]


def test_tis_truncates_above_only():
    correction = corrected(OLD, BEHAVIOUR, correction="tis", correction_high=2.0)
    torch.testing.assert_close(correction.weight, torch.tensor([0.1, 0.5, 1.0, 1.9, 2.0], dtype=torch.float64))
    assert correction.truncated.tolist() == [False, False, False, False, True]
    assert not correction.masked.any()


def test_mask_drops_both_sides():
    correction = corrected(OLD, BEHAVIOUR, correction="mask", correction_low=0.3, correction_high=2.0)
    torch.testing.assert_close(correction.weight, torch.tensor([0.0, 0.5, 1.0, 1.9, 0.0], dtype=torch.float64))
    assert correction.masked.tolist() == [True, False, False, False, True]
    assert not correction.truncated.any()


@pytest.mark.parametrize("mode", ["tis", "mask"])
@given(
    old=st.floats(-1e6, 0, width=32),
    behaviour=st.one_of(st.floats(-1e6, 0, width=32), st.sampled_from([math.nan, math.inf, -math.inf])),
)
def test_weight_is_finite_and_bounded(mode, old, behaviour):
    correction = corrected(torch.tensor([old]), torch.tensor([behaviour]), correction=mode)
    assert 0 <= correction.weight.item() <= 2.0
    if not math.isfinite(behaviour):
        assert correction.weight.item() == 0
        assert correction.nonfinite.item()
        assert not (correction.masked | correction.truncated).item()


@pytest.mark.parametrize("mode", ["off", "tis", "mask"])
def test_weight_has_no_gradient(mode):
    old = OLD.clone().requires_grad_()
    assert not corrected(old, BEHAVIOUR, correction=mode).weight.requires_grad


def test_mismatch_is_measured_on_finite_tokens_only():
    behaviour = torch.tensor([-1.0, -2.0, -math.inf, -3.0])
    old = torch.tensor([-1.5, -1.0, -1.0, -3.0], requires_grad=True)
    batch = Tokens(
        logprob=old,
        proximal_logprob=old.detach(),
        advantage=torch.ones(4),
        sequence_lengths=torch.tensor([4]),
    )
    loss, statistics = objective(batch, behaviour, torch.tensor([1.0, 2.0, 3.0, 6.0]), AlgorithmConfig(), 4.0)
    values = statistics.compute()
    gaps = [-0.5, 1.0, 0.0]
    assert loss.item() == pytest.approx(-(math.exp(-0.5) + 2.0 + 0.0 + 1.0) / 4)
    assert values["mismatch/kl_k1"] == pytest.approx(-sum(gaps) / 3)
    assert values["mismatch/kl_k3"] == pytest.approx(sum(math.exp(gap) - 1 - gap for gap in gaps) / 3)
    assert values["mismatch/logprob_gap_mean"] == pytest.approx(0.5)
    assert values["mismatch/logprob_gap_max"] == 1.0
    assert values["mismatch/nonfinite_fraction"] == 0.25
    assert values["mismatch/truncated_fraction"] == 0.25
    assert values["policy/entropy"] == 3.0


def test_kl_estimates_agree_with_the_exact_divergence():
    generator = torch.Generator().manual_seed(0)
    engine, trainer = (torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    tokens = torch.multinomial(engine.exp(), 200_000, replacement=True, generator=generator)
    old = trainer[tokens].requires_grad_()
    batch = Tokens(
        logprob=old,
        proximal_logprob=old.detach(),
        advantage=torch.ones(len(tokens)),
        sequence_lengths=torch.tensor([len(tokens)]),
    )
    values = objective(batch, engine[tokens], torch.zeros(len(tokens)), AlgorithmConfig(), 1.0)[1].compute()
    exact = torch.nn.functional.kl_div(trainer, engine, reduction="sum", log_target=True).item()
    assert values["mismatch/kl_k1"] == pytest.approx(exact, rel=0.03)
    assert values["mismatch/kl_k3"] == pytest.approx(exact, rel=0.03)
