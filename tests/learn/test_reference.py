"""The frozen reference: its log-probs and divergences against transformers' own logits, and what it holds."""

import numpy as np
import pytest
import torch
from samples import training_sample
from transformers import Qwen3ForCausalLM

from polaris.config.model import RopeConfig
from polaris.distributed.fsdp import assert_sharded
from polaris.errors import RunFailed
from polaris.learn.reference import load_reference
from polaris.learn.update import logprobs, rank_packs


def samples():
    generator = np.random.default_rng(3)
    drawn = []
    for length, temperature in ((5, 1.0), (1, 0.7), (9, 1.4), (4, 1.0)):
        tokens, mask = generator.integers(0, 97, length), generator.random(length) < 0.7
        logprobs = -np.log(97) + generator.normal(0, 0.4, length)
        drawn.append(training_sample(generator.integers(0, 97, 4).tolist(), tokens, logprobs, 1.0, temperature, mask | (length == 1)))
    drawn[2].rollout.logprobs[4] = -np.inf
    drawn[2].rollout.mask[4] = True
    return drawn


def expected(folder, drawn):
    """Sum of behaviour minus reference log-probs over the chosen tokens, from logits in float64."""
    model = Qwen3ForCausalLM.from_pretrained(folder).double()
    found = []
    for sample in drawn:
        tokens = torch.tensor([*sample.prompt_tokens, *sample.rollout.tokens.tolist()])
        with torch.no_grad():
            logits = model(tokens[None]).logits[0, len(sample.prompt_tokens) - 1 : -1] / sample.rollout.temperature
        logprob = torch.log_softmax(logits, -1).gather(1, tokens[len(sample.prompt_tokens) :, None])[:, 0].numpy()
        kept = sample.rollout.mask & np.isfinite(sample.rollout.logprobs)
        found.append(float((sample.rollout.logprobs - logprob)[kept].sum()))
    return found


@pytest.mark.parametrize("tokens_per_pack", [10, 1000])
def test_divergences_are_the_sums_over_chosen_tokens(world, tiny_qwen3, tokens_per_pack):
    drawn = samples()
    reference = load_reference(tiny_qwen3, RopeConfig(), world, torch.float32)
    found = reference.divergences(drawn, world, tokens_per_pack)
    np.testing.assert_allclose(found, expected(tiny_qwen3, drawn), atol=2e-5)
    assert_sharded(reference.policy)


def test_a_reference_that_is_not_finite_ends_the_run(world, tiny_qwen3):
    reference = load_reference(tiny_qwen3, RopeConfig(), world, torch.float32)
    with torch.no_grad():
        next(reference.policy.parameters()).fill_(torch.nan)
    with pytest.raises(RunFailed, match=r"log-probs of the reference are not finite; set model\.dtype"):
        reference.divergences(samples(), world, 1000)


def test_it_is_frozen_in_the_compute_dtype_and_computes_as_the_policy_does(trainer, tiny_qwen3):
    policy, world = trainer
    reference = load_reference(tiny_qwen3, RopeConfig(), world, torch.bfloat16)
    parameters = list(reference.policy.parameters())
    assert {parameter.dtype for parameter in parameters} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in parameters)
    assert {buffer.dtype for buffer in reference.policy.buffers() if buffer.is_floating_point()} == {torch.float32}
    packs = rank_packs(samples(), world, 1000)
    [scored] = load_reference(tiny_qwen3, RopeConfig(), world, torch.float32).score(packs)
    with torch.no_grad():
        assert torch.equal(scored.batch.reference_logprob, logprobs(policy.eval(), packs[0]))
