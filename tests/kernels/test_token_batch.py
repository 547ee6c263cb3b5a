"""`TokenBatch`, and the two calls that take one against the flat calls."""

from __future__ import annotations

import doctest
from dataclasses import fields

import pytest
import torch

from polaris_kernels import (
    Head,
    PolicyLossSettings,
    TokenBatch,
    linear_policy_loss,
    linear_policy_loss_of_batch,
    policy_loss,
    policy_loss_of_batch,
    token_batch,
)

LENGTHS = torch.tensor([3, 0, 4, 2])


def batch_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = int(LENGTHS.sum())
    return TokenBatch(
        targets=torch.randint(31, (tokens,), generator=generator),
        temperature=torch.empty(tokens).uniform_(0.6, 1.4, generator=generator),
        behaviour_logprob=-4 * torch.rand(tokens, generator=generator),
        advantage=torch.randn(tokens, generator=generator),
        mask=torch.rand(tokens, generator=generator) < 0.8,
        proximal_logprob=-4 * torch.rand(tokens, generator=generator),
        sequence_lengths=LENGTHS,
    )


def flat(value, *but):
    return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in but}


def test_the_example_runs():
    assert doctest.testmod(token_batch).failed == 0


def test_rows_of_a_batch_keep_what_is_left_of_each_sequence():
    batch = batch_of()
    rows = torch.tensor([0, 2, 6, 7, 8])
    for part in (batch[rows], batch[torch.zeros(9, dtype=torch.bool).index_fill(0, rows, True)]):
        assert part.sequence_lengths.tolist() == [2, 0, 1, 2]
        assert part.sequences()[1].tolist() == [0, 0, 2, 3, 3]
        for name in ("targets", "temperature", "behaviour_logprob", "advantage", "mask", "proximal_logprob"):
            assert torch.equal(getattr(part, name), getattr(batch, name)[rows]), name


def test_what_is_not_one_value_per_token_stays_with_the_rows():
    batch = TokenBatch(behaviour_logprob=torch.zeros(4), advantage=torch.ones(4), temperature=0.7)
    assert batch[torch.tensor([1, 3])].temperature == 0.7
    assert batch[torch.tensor([1, 3])].proximal_logprob is None
    scalar = torch.tensor(0.7)
    assert (
        TokenBatch(behaviour_logprob=torch.zeros(4), advantage=torch.ones(4), temperature=scalar)[torch.tensor([1])].temperature is scalar
    )


def test_without_a_proximal_policy_the_trained_one_is_a_constant():
    logprob = torch.zeros(4, requires_grad=True)
    batch = TokenBatch(behaviour_logprob=torch.zeros(4), advantage=torch.ones(4), logprob=logprob)
    assert torch.equal(batch.proximal(), logprob)
    assert not batch.proximal().requires_grad
    assert torch.equal(torch.autograd.grad(batch.ratio().sum(), logprob)[0], torch.ones(4))


@pytest.mark.parametrize("kind", ["dapo", "grpo", "dr_grpo", "gspo", "cispo"])
@pytest.mark.filterwarnings("ignore:kind")
def test_the_flat_calls_give_the_same_bits(kind):
    batch = batch_of()
    settings = PolicyLossSettings(
        kind=kind, clip_low=0.1, clip_high=0.3, dual_clip=1.5, correction="mask", correction_low=0.4, correction_high=3.0
    )
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(9, 8, generator=generator), torch.randn(31, 8, generator=generator)
    bias = torch.randn(31, generator=generator)
    leaves = [leaf.requires_grad_() for leaf in (hidden, weight, bias)]
    head = Head(weight=weight, bias=bias, softcap=9.0, logits_dtype=torch.bfloat16)
    ours = linear_policy_loss_of_batch(hidden, head, batch, settings, 7.0)
    options = flat(head, "weight") | flat(batch, "logprob", "weight") | flat(settings)
    expected = linear_policy_loss(hidden, weight, denominator=7.0, **options)
    logprob = expected[2].clone().requires_grad_()
    ours_alone = policy_loss_of_batch(logprob, batch, settings, 7.0)
    expected_alone = policy_loss(
        logprob, denominator=7.0, **flat(batch, "targets", "temperature", "sampling_mask", "logprob") | flat(settings)
    )
    for (loss, totals, *rest), (true, true_totals, *true_rest), parts in (
        (ours, expected, leaves),
        (ours_alone, expected_alone, [logprob]),
    ):
        assert list(totals) == list(true_totals)
        pairs = zip((loss, *totals.values(), *rest), (true, *true_totals.values(), *true_rest), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        gradients = zip(torch.autograd.grad(loss, parts), torch.autograd.grad(true, parts), strict=True)
        assert all(torch.equal(a, b) for a, b in gradients)


def test_a_batch_without_targets_has_no_log_probs():
    batch = TokenBatch(behaviour_logprob=torch.zeros(4), advantage=torch.ones(4))
    with pytest.raises(ValueError, match="no targets"):
        linear_policy_loss_of_batch(torch.zeros(4, 8), Head(weight=torch.zeros(31, 8)), batch, PolicyLossSettings(), 1.0)


def test_only_the_flat_call_warns_of_whole_sequences(recwarn):
    batch, settings = batch_of(), PolicyLossSettings(kind="gspo")
    hidden, weight = torch.zeros(9, 8), torch.zeros(31, 8)
    linear_policy_loss_of_batch(hidden, Head(weight=weight), batch, settings, 7.0)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="whole sequences"):
        linear_policy_loss(hidden, weight, denominator=7.0, kind="gspo", **flat(batch, "logprob", "weight"))
