"""Training takes the fused operations without being asked, and its losses and gradients are those of the definitions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.distributed import mesh
from polaris.learn.update import accumulate, rank_packs
from polaris_kernels import policy_loss
from polaris_kernels.linear_logprob import linear_logprob_reference
from polaris_kernels.linear_policy_loss import function

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
import update_once

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def definition(model, samples, settings, total):
    """Loss and gradients in float64, sample by sample through transformers' own model and full logits."""
    loss = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        ids = torch.tensor([*sample.prompt_tokens, *sample.rollout.tokens.tolist()])
        hidden = model.model(ids[None]).last_hidden_state[0, len(sample.prompt_tokens) - 1 : -1]
        targets = ids[len(sample.prompt_tokens) :]
        logprob, _ = linear_logprob_reference(hidden, model.lm_head.weight, targets, temperature=sample.rollout.temperature)
        behaviour, advantage = torch.from_numpy(sample.rollout.logprobs).double(), torch.full_like(logprob, sample.advantage)
        lengths = torch.tensor([len(targets)])
        loss = loss + policy_loss(logprob, behaviour, advantage, None, total, sequence_lengths=lengths, **settings)[0]
    loss.backward()
    return float(loss.detach()), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("loss", [AlgorithmConfig().loss, "gspo"])
def test_training_uses_the_operations_and_equals_the_definitions(tmp_path, monkeypatch, loss):
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=97, num_hidden_layers=2, **SHAPE))
    model.save_pretrained(tmp_path)
    calls = []
    one, two = function._LinearPolicyLoss.apply, function.linear_logprob
    monkeypatch.setattr(function._LinearPolicyLoss, "apply", lambda *a: calls.append("one operation") or one(*a))
    monkeypatch.setattr(function, "linear_logprob", lambda *a, **k: calls.append("linear_logprob") or two(*a, **k))
    config = RunConfig(algorithm=AlgorithmConfig(loss=loss))
    samples = update_once.with_logprobs(update_once.samples())
    world = mesh.start()
    try:
        policy = update_once.open_policy(tmp_path, world)
        packs = rank_packs(samples, world, 128)
        value = accumulate(policy, packs, 50.0, config).loss
        gradients = {name: parameter.grad.full_tensor().double() for name, parameter in policy.model.named_parameters()}
    finally:
        mesh.stop()
    # The one operation takes tokens without an advantage, of which there may be none, to `linear_logprob`.
    assert calls == (["linear_logprob"] if loss == "gspo" else ["one operation", "linear_logprob"]) * len(packs)
    settings = {name: getattr(config.algorithm, name) for name in ("clip_low", "clip_high", "dual_clip", "correction")}
    bounds = {name: getattr(config.algorithm, name) for name in ("correction_low", "correction_high")}
    expected, truth = definition(model.double(), samples, {"kind": loss} | settings | bounds, 50.0)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    worst = max(float((gradients[name] - true).norm() / true.norm()) for name, true in truth.items())
    print(f"{loss}: loss {float(value):.9f}, definition {expected:.9f}; worst relative difference of a gradient {worst:.1e}")
    assert worst < 1e-5
