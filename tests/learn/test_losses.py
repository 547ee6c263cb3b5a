from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objectives import Tokens, objective

from polaris.config.algorithm import AlgorithmConfig
from polaris.doors import placed
from polaris.errors import Refused
from polaris.learn.aggregate import Counts, aggregate_of, denominator, gradient_scale
from polaris.learn.objective import check_loss, policy_loss_settings, policy_objective
from polaris_kernels import Head
from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.policy_loss.registry import LOSSES

CONFIGS = [
    AlgorithmConfig(loss="dapo"),
    AlgorithmConfig(loss="grpo"),
    AlgorithmConfig(loss="dr_grpo"),
    AlgorithmConfig(loss="gspo", clip_low=0.05, clip_high=0.06),
    AlgorithmConfig(loss="cispo"),
]
every_loss = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.loss)


def batch_of(lengths, seed=0, spread=0.5):
    """A pack with those response lengths, and engine log-probs for it; float64."""
    generator = torch.Generator().manual_seed(seed)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    logprob = -3 * torch.rand(len(sequence), generator=generator, dtype=torch.float64)
    old, behaviour = (logprob + scale * torch.randn(logprob.shape, generator=generator, dtype=torch.float64) for scale in (spread, 0.1))
    advantage = torch.randn(len(lengths), generator=generator, dtype=torch.float64)[sequence]
    lengths = torch.tensor(lengths)
    batch = Tokens(logprob=logprob.requires_grad_(), proximal_logprob=old, advantage=advantage, sequence_lengths=lengths)
    return batch, behaviour


def step_denominator(config, lengths):
    counts = Counts(response_tokens=sum(lengths), sequences=len(lengths), prompts=1, max_response_tokens=50)
    return denominator(aggregate_of(config), counts)


def single(config, ratio, advantage):
    """Loss, gradient with respect to the log-prob, and token loss of one token with that importance ratio."""
    logprob = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    batch = Tokens(
        logprob=logprob,
        proximal_logprob=logprob.detach() - math.log(ratio),
        advantage=one * advantage,
        sequence_lengths=torch.ones(1, dtype=torch.long),
    )
    result = LOSSES[config.loss].token_loss(replace(batch.as_batch(batch.proximal_logprob), logprob=logprob), policy_loss_settings(config))
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprob)
    return result.loss.item(), gradient.item(), result


def looped_loss(batch, behaviour, config, total):
    """The papers' formulas, one token at a time, in Python floats."""
    batch = replace(batch, logprob=batch.logprob.detach())
    low, high, result = 1 - config.clip_low, 1 + config.clip_high, 0.0
    for s, length in enumerate(batch.sequence_lengths.tolist()):
        tokens = [t for t, owner in enumerate(batch.sequence.tolist()) if owner == s]
        log_ratios = [float(batch.logprob[t] - batch.proximal_logprob[t]) for t in tokens]
        for t, log_ratio in zip(tokens, log_ratios, strict=True):
            advantage = float(batch.advantage[t])
            ratio = math.exp(sum(log_ratios) / length if config.loss == "gspo" else log_ratio)
            clipped = min(max(ratio, low), high)
            loss = (
                -clipped * advantage * float(batch.logprob[t]) if config.loss == "cispo" else max(-ratio * advantage, -clipped * advantage)
            )
            if config.loss == "dapo" and advantage < 0:
                loss = min(loss, -config.dual_clip * advantage)
            weight = min(math.exp(float(batch.proximal_logprob[t] - behaviour[t])), config.correction_bounds[1])
            result += weight * loss / (length if config.loss in ("grpo", "gspo") else 1)
    return result / total


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_formula_of_the_paper_one_token_at_a_time(config, seed):
    lengths = [4, 1, 7, 2]
    batch, behaviour = batch_of(lengths, seed, spread=0.8)
    total = step_denominator(config, lengths)
    loss, _ = objective(batch, behaviour, torch.zeros_like(behaviour), config, total)
    assert loss.item() == pytest.approx(looped_loss(batch, behaviour, config, total), rel=1e-12)


@pytest.mark.parametrize("config", CONFIGS[:4], ids=lambda config: config.loss)
def test_gradient_by_finite_differences(config):
    config = replace(config, correction="off")  # GSPO-token gives each token its own weight, which a difference of sums cannot show
    batch, behaviour = batch_of([4, 1, 7, 2])

    def loss(logprob):
        return objective(replace(batch, logprob=logprob), behaviour, torch.zeros_like(behaviour), config, 3.0)[0]

    assert torch.autograd.gradcheck(loss, batch.logprob)


def test_gspo_token_gradient_carries_the_tokens_own_correction():
    config = AlgorithmConfig(loss="gspo", clip_low=1.0, clip_high=10.0, correction_high=100.0)
    batch, behaviour = batch_of([4, 3])
    loss, _ = objective(batch, behaviour, torch.zeros_like(behaviour), config, 1.0)
    (gradient,) = torch.autograd.grad(loss, batch.logprob)
    log_ratio = (batch.logprob - batch.proximal_logprob).detach()
    ratio = torch.cat([log_ratio[:4].mean().exp().expand(4) / 4, log_ratio[4:].mean().exp().expand(3) / 3])
    torch.testing.assert_close(gradient, -(batch.proximal_logprob - behaviour).exp() * ratio * batch.advantage)


def test_cispo_gradient_is_the_clipped_weight_times_the_advantage():
    config = AlgorithmConfig(loss="cispo")
    for ratio, weight in ((0.5, 0.8), (1.1, 1.1), (3.0, 1.28)):
        for advantage in (-2.0, 1.0):
            assert single(config, ratio, advantage)[1] == pytest.approx(-weight * advantage)


@every_loss
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=6), data=st.data())
def test_total_does_not_depend_on_the_packs(config, lengths, data):
    batch, behaviour = batch_of(lengths)
    total = step_denominator(config, lengths)
    whole, whole_statistics = objective(batch, behaviour, -batch.logprob.detach(), config, total)
    (expected,) = torch.autograd.grad(whole, batch.logprob)
    packs = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    merged, loss = None, 0.0
    for pack in range(3):  # one of them may be empty
        members = [s for s, owner in enumerate(packs) if owner == pack]
        rows = torch.cat([torch.empty(0, dtype=torch.long), *((batch.sequence == s).nonzero().squeeze(1) for s in members)])
        part = Tokens(
            logprob=batch.logprob[rows],
            proximal_logprob=batch.proximal_logprob[rows],
            advantage=batch.advantage[rows],
            sequence_lengths=batch.sequence_lengths[members],
        )
        part_loss, statistics = objective(part, behaviour[rows], -part.logprob.detach(), config, total)
        loss = loss + part_loss
        merged = statistics if merged is None else (merged.merge(statistics), merged)[1]
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(torch.autograd.grad(loss, batch.logprob)[0], expected)
    assert merged.compute() == pytest.approx(whole_statistics.compute())


@every_loss
def test_first_update_is_the_policy_gradient(config):
    lengths = [3, 5]
    batch, _ = batch_of(lengths)
    batch = replace(batch, proximal_logprob=batch.logprob.detach())
    loss, statistics = objective(batch, batch.proximal_logprob, torch.zeros_like(batch.advantage), config, 1.0)
    (gradient,) = torch.autograd.grad(loss, batch.logprob)
    share = batch.sequence_lengths[batch.sequence] if config.loss in ("grpo", "gspo") else 1
    torch.testing.assert_close(gradient, -batch.advantage / share)
    values = statistics.compute()
    assert values["policy/ratio_max"] == 1.0
    assert values["policy/clip_low"] == values["policy/clip_high"] == values["policy/clip_dual"] == 0.0


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "gspo"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "bound"),
    [(1.27, 1.0, None), (1.29, 1.0, "clip_high"), (1.29, -1.0, None), (0.79, -1.0, "clip_low"), (0.81, -1.0, None), (0.5, 1.0, None)],
)
def test_clip_acts_only_where_the_ratio_moved_with_the_advantage(loss, ratio, advantage, bound):
    value, gradient, result = single(AlgorithmConfig(loss=loss), ratio, advantage)
    assert (gradient == 0) == (bound is not None)
    assert [name for name in ("clip_low", "clip_high", "clip_dual") if getattr(result, name).item()] == ([bound] if bound else [])
    effective = {"clip_low": 0.8, "clip_high": 1.28, None: ratio}[bound]
    assert value == pytest.approx(-effective * advantage)


def test_dual_clip_bounds_negative_advantages_only():
    config = AlgorithmConfig(loss="dapo", dual_clip=3.0)
    value, gradient, result = single(config, 5.0, -2.0)
    assert (value, gradient, result.clip_dual.item()) == (pytest.approx(6.0), 0.0, True)
    value, gradient, result = single(replace(config, dual_clip="off"), 5.0, -2.0)
    assert (value, gradient, result.clip_dual.item()) == (pytest.approx(10.0), pytest.approx(10.0), False)
    assert not single(config, 5.0, 2.0)[2].clip_dual.item()


@every_loss
@pytest.mark.parametrize("gap", [-1e4, 1e4])
def test_extreme_log_ratios_do_not_overflow(config, gap):
    batch, behaviour = batch_of([3, 4])
    batch = replace(batch, logprob=batch.logprob.float(), proximal_logprob=(batch.logprob.detach() - gap).float())
    loss, _ = objective(batch, behaviour.float(), torch.zeros_like(batch.proximal_logprob), config, 1.0)
    (gradient,) = torch.autograd.grad(loss, batch.logprob)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@every_loss
def test_a_nan_of_the_trainer_reaches_the_loss(config):
    batch, behaviour = batch_of([3, 4])
    logprob = torch.where(torch.arange(7) == 2, math.nan, batch.logprob)
    assert objective(replace(batch, logprob=logprob), behaviour, torch.zeros_like(behaviour), config, 1.0)[0].isnan()


@every_loss
@pytest.mark.parametrize("first", [True, False])
def test_from_hidden_states_equals_the_definition(config, first):
    """What the trainer calls, against full logits in float64 and the loss's own formula."""
    batch, behaviour = batch_of([4, 1, 7, 2], spread=0.1)
    generator = torch.Generator().manual_seed(3)
    leaves = [torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in ((14, 6), (30, 6))]
    targets, temperature = torch.randint(30, (14,), generator=generator), torch.full((14,), 0.8, dtype=torch.float64)
    logprob, entropy = linear_logprob_reference(*leaves, targets, temperature=temperature)
    old = None if first else logprob.detach() + 0.1 * torch.randn(14, dtype=torch.float64, generator=generator)
    truth = replace(batch, logprob=logprob, proximal_logprob=logprob.detach() if first else old)
    expected, expected_statistics = objective(truth, behaviour, entropy.detach(), config, 5.0)
    given = replace(batch, proximal_logprob=old).as_batch(behaviour, targets=targets, temperature=temperature)
    loss, statistics = policy_objective(leaves[0], Head(weight=leaves[1]), given, policy_loss_settings(config), 5.0)
    torch.testing.assert_close(loss, expected)
    assert statistics.compute() == pytest.approx(expected_statistics.compute())
    for got, true in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(got, true)


def test_denominators():
    counts = Counts(response_tokens=70, sequences=8, prompts=2, max_response_tokens=100)
    values = {name: denominator(aggregate_of(AlgorithmConfig(loss=name)), counts) for name in LOSSES}
    assert values == {"dapo": 70.0, "cispo": 70.0, "grpo": 8.0, "gspo": 8.0, "dr_grpo": 800.0}
    values = {kind: denominator(kind, counts) for kind in ("token", "sequence", "prompt", "constant")}
    assert values == {"token": 70.0, "sequence": 8.0, "prompt": 2.0, "constant": 800.0}


def test_every_loss_of_the_configuration_is_registered():
    assert {config.loss for config in CONFIGS} == set(LOSSES)
    for name in LOSSES:
        AlgorithmConfig(loss=name)


def test_gradient_scale_makes_the_average_token_weigh_about_one():
    """Of 8 sequences of 90,000 tokens each, a token weighs 1 / 90,000; 2 ** 16 is the nearest power of two to what makes it 1."""

    def scale(kind, tokens):
        return gradient_scale(kind, Counts(response_tokens=tokens, sequences=8, prompts=2, max_response_tokens=100_000))

    assert scale("sequence", 720_000) == 2.0**16
    assert scale("prompt", 720_000) == 2.0**18
    assert [scale("sequence", tokens) for tokens in (8, 11, 12)] == [1.0, 1.0, 2.0]
    assert scale("token", 720_000) == scale("constant", 720_000) == 1.0
    assert scale("token", 0) == 1.0  # every response is empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no module 'mine'"),
        ("loss = 3", "'mine:loss' is neither a function of .batch, settings. nor a PolicyLoss"),
        ("def loss(batch): return batch.logprob", "takes 1 positional argument but 2 were given"),
        ("def loss(batch, settings): return batch.logprob.sum()", r"'mine:loss' gave \(\); it must give one term per token"),
        ("def loss(batch, settings): return batch.advantage", "'mine:loss' has no gradient"),
        ("def loss(batch, settings): return batch.logprob / batch.reward", "'TokenBatch' object has no attribute 'reward'"),
        ("def loss(batch, settings): return batch.logprob * batch.sequences()[1]", "which a loss that is not of_sequences does not get"),
        ("def loss(batch, settings): return batch.logprob - batch.reference_logprob", "unsupported operand"),
    ],
)
def test_a_loss_of_ones_own_is_tried_before_the_run(text, message, tmp_path):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(Refused, match=message):
        check_loss(AlgorithmConfig(loss=placed("mine:loss", tmp_path)))


def test_it_is_tried_with_the_reference_that_the_configuration_asks_for(tmp_path):
    (tmp_path / "mine.py").write_text("def loss(batch, settings): return batch.logprob - batch.reference_logprob")
    check_loss(AlgorithmConfig(loss=placed("mine:loss", tmp_path), kl="k3"))
    with pytest.raises(Refused, match="unsupported operand"):
        check_loss(AlgorithmConfig(loss=placed("mine:loss", tmp_path), kl="k1"))


@pytest.mark.parametrize("correction", ["tis", "sequence_tis"])
def test_it_is_tried_with_a_temperature_and_a_target_of_each_token(correction, tmp_path):
    (tmp_path / "mine.py").write_text("def loss(batch, settings): return batch.logprob * batch.temperature[batch.targets * 0]")
    check_loss(AlgorithmConfig(loss=placed("mine:loss", tmp_path), correction=correction))


def test_a_loss_of_ones_own_is_the_one_that_the_run_began_with(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def loss(batch, settings): return -2 * batch.advantage * batch.logprob")
    config = AlgorithmConfig(loss=placed("mine:loss", tmp_path), correction="off")
    check_loss(config)
    file.write_text("def loss(batch, settings): return 0 * batch.logprob")
    batch, behaviour = batch_of([4, 1])
    loss, _ = objective(batch, behaviour, torch.zeros_like(behaviour), config, 5.0)
    assert loss.item() == pytest.approx(-2 * float((batch.advantage * batch.logprob.detach()).sum()) / 5)
    check_loss(config)
    assert objective(batch, behaviour, torch.zeros_like(behaviour), config, 5.0)[0].item() == 0
