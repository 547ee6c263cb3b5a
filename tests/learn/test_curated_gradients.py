"""Gradients of substituted and rescued batches on a real policy, against the same groups given twice and against plain autograd."""

import dataclasses

import pytest
import torch
from groups import batch, group
from transformers import Qwen3ForCausalLM

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.learn.aggregate import aggregate_of, count, denominator, weighted
from polaris.learn.curate import curate
from polaris.learn.success_buffer import SuccessBuffer
from polaris.learn.update import accumulate, rank_packs
from polaris_kernels.policy_loss.registry import LOSSES

LETTERS = {"a": "+--+", "b": "++++", "c": "--0-", "d": "----", "e": "x+xx", "f": "-x+-"}


def settings(places, **algorithm):
    return RunConfig(algorithm=AlgorithmConfig(**algorithm), trainer=TrainerConfig(prompts_per_step=places))


def gradients(trainer, samples, config, tokens_per_pack=10**6):
    """Of one update on the samples, as the training step makes it."""
    policy, world = trainer
    total = denominator(aggregate_of(config.algorithm), count(samples, config.rollout.max_response_tokens))
    samples = weighted(samples, config.algorithm)
    policy.train()
    accumulate(policy, rank_packs(samples, world, tokens_per_pack), total, config)
    grads = torch.cat([parameter.grad.full_tensor().flatten() for _, parameter in policy.model.named_parameters()])
    policy.zero_grad()
    return grads


def relative(a, b):
    return float((a - b).norm() / b.norm())


def response_logprobs(model, sample):
    """[n] of the response, at the sample's own temperature, by transformers alone."""
    tokens = torch.tensor([*sample.prompt_tokens, *sample.rollout.tokens.tolist()])
    logits = model(tokens[None]).logits[0, :-1] / sample.rollout.temperature
    return logits.log_softmax(-1).gather(1, tokens[1:, None])[len(sample.prompt_tokens) - 1 :, 0]


def direct_gradients(tiny_qwen3, samples, cap):
    """-sum of min(pi / mu, cap) * advantage * grad log pi over all samples, over the number of response tokens."""
    model = Qwen3ForCausalLM.from_pretrained(tiny_qwen3)
    weights, total = [], sum(len(s.rollout.tokens) for s in samples)
    for sample in samples:
        logprob = response_logprobs(model, sample)
        weight = (logprob.detach() - torch.from_numpy(sample.rollout.logprobs)).exp().clamp(max=cap)
        (-(weight * sample.advantage * logprob).sum() / total).backward()
        weights.append(weight)
    return torch.cat([parameter.grad.flatten() for _, parameter in model.named_parameters()]), weights


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tokens_per_pack", [10**6, 40])
def test_a_substituted_batch_equals_the_same_groups_given_twice(trainer, loss, tokens_per_pack):
    substituted = curate(batch(**LETTERS), settings(6, loss=loss, substitution=True), SuccessBuffer(0), step=3)
    assert sorted(substituted.trained) == [0, 0, 0, 5, 5, 5]
    drawn = batch(a=LETTERS["a"], f=LETTERS["f"])
    given = curate(drawn * 3, settings(6, loss=loss), SuccessBuffer(0), step=3)
    assert given.trained == list(range(6))
    config = settings(6, loss=loss)
    expected = gradients(trainer, given.samples, config)
    assert relative(gradients(trainer, substituted.samples, config, tokens_per_pack), expected) < 1e-5


def test_copies_weigh_in_the_mean_over_tokens(trainer):
    """As many copies of every group change nothing; one more of one group does."""
    copied, once, uneven = (
        curate(batch(**LETTERS), settings(6, substitution=True), SuccessBuffer(0), step=3),
        curate(batch(a=LETTERS["a"], f=LETTERS["f"]), settings(2), SuccessBuffer(0), step=3),
        curate(batch(a=LETTERS["a"], b="++++", f=LETTERS["f"]), settings(3, substitution=True), SuccessBuffer(0), step=3),
    )
    base = gradients(trainer, once.samples, settings(6))
    assert relative(gradients(trainer, copied.samples, settings(6)), base) < 1e-5
    assert relative(gradients(trainer, uneven.samples, settings(6)), base) > 0.05


@pytest.mark.parametrize("cap", [1.05, 2.0, 50.0])
def test_a_rescued_sample_is_weighed_against_the_policy_that_made_it(trainer, tiny_qwen3, cap):
    drawn = batch(**LETTERS)
    successes = SuccessBuffer(1)
    successes.add([group("c", "+", version=2, temperature=0.7)])
    config = settings(6, substitution=True, correction_high=cap)
    curated = curate(drawn, config, successes, step=3)
    assert len(curated.rescued) == 1
    expected, weights = direct_gradients(tiny_qwen3, curated.samples, cap)
    assert relative(gradients(trainer, curated.samples, config), expected) < 1e-4
    own = [sample.rollout.temperature for sample in curated.samples].index(0.7)
    assert (weights[own] == cap).any() == (cap < 50)
    assert (weights[own] < 1).any()
    as_if_fresh = [dataclasses.replace(s, rollout=dataclasses.replace(s.rollout, temperature=1.0)) for s in curated.samples]
    assert relative(gradients(trainer, as_if_fresh, config), expected) > 1e-3
