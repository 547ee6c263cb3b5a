"""Gradients do not depend on how many tokens the optimizer step counts: the recipe's 9.3 million must not underflow in float16."""

import numpy as np
import pytest
import torch
from samples import training_sample
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.distributed.fsdp import shard
from polaris.learn.update import accumulate, rank_packs
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy
from polaris_kernels.policy_loss.registry import LOSSES

VOCABULARY = 4096
DENOMINATORS = (1e3, 1e6, 1e7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose next-token distributions are peaked, as a trained one's."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=VOCABULARY, num_hidden_layers=2, tie_word_embeddings=False, **shape))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def policies(folder, world):
    def opened(dtype):
        policy = shard(Policy(build_model(folder)), world.mesh, dtype)
        load_weights(policy.model, folder, world.device)
        return policy

    return {name: opened(getattr(torch, name)) for name in ("float32", "bfloat16", "float16")}


def samples():
    generator = np.random.default_rng(0)

    def sample():
        length = int(generator.integers(20, 60))
        return training_sample(
            prompt_tokens=tuple(generator.integers(0, VOCABULARY, 4).tolist()),
            tokens=generator.integers(0, VOCABULARY, length).astype(np.int32),
            logprobs=np.full(length, -np.log(VOCABULARY), np.float32),
            advantage=float(generator.normal()),
            temperature=1.0,
        )

    return [sample() for _ in range(8)]


def gradients(policy, world, loss, total):
    """Times the denominator, so that they should be the same for every one."""
    packs = rank_packs(samples(), world, 256)
    policy.train()
    accumulate(policy, packs, total, RunConfig(algorithm=AlgorithmConfig(loss=loss)))
    grads = [total * parameter.grad.full_tensor().double().flatten() for parameter in policy.parameters()]
    policy.zero_grad()
    return torch.cat(grads)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_do_not_depend_on_the_denominator(policies, world, loss):
    truth = gradients(policies["float32"], world, loss, 1.0)
    errors = {
        name: [relative(gradients(policies[name], world, loss, total), truth) for total in DENOMINATORS]
        for name in ("float32", "bfloat16", "float16")
    }
    for name, found in errors.items():
        print(f"{loss} {name}: " + ", ".join(f"{total:.0e}: {error:.1e}" for total, error in zip(DENOMINATORS, found, strict=True)))
    for name, bound in (("float32", 1e-6), ("bfloat16", 3e-2), ("float16", 4e-3)):
        assert max(errors[name]) < bound
        assert max(errors[name]) - min(errors[name]) < 1e-6
