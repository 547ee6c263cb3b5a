"""Compiled layers compute the same, and packs of other lengths do not compile them again. By the tracer and autograd of torch.compile; its
code generator, which takes a minute here, is left out."""

from functools import partial
from typing import get_args

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AttentionInterface, Qwen3Config, Qwen3ForCausalLM

from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.model.activations import Activations, save_activations
from polaris.model.attention import NAME, pack_layout, packed_attention
from polaris.model.compiled import compile_layers
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy

PACKS = ([5, 9, 30], [7, 11], [40, 3, 2, 1])


@pytest.fixture
def opened(tiny_qwen3, monkeypatch):
    """Makes policies, whose layers are compiled or not."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    world = mesh.start()

    def open_policy(compiled, activations):
        policy = shard(Policy(build_model(tiny_qwen3)), world.mesh, torch.float32)
        if compiled:
            compile_layers(policy.model)
        save_activations(policy.model, activations, world.device)
        load_weights(policy.model, tiny_qwen3, world.device)
        return policy.train()

    yield open_policy
    mesh.stop()
    AttentionInterface.register(NAME, packed_attention)
    torch._dynamo.reset()


def gradients(policy, lengths):
    tokens = torch.arange(sum(lengths)) % 97
    positions = torch.cat([torch.arange(length) for length in lengths])
    rows = torch.arange(len(tokens) - 1)
    logprob, _ = policy(tokens, positions, pack_layout(lengths, tokens.device), rows, tokens[1:], torch.ones(len(rows)))
    logprob.square().sum().backward()
    found = {name: parameter.grad.full_tensor() for name, parameter in policy.named_parameters()}
    policy.zero_grad()
    return found


@pytest.mark.parametrize("activations", ["recompute_mlp", "offload"])
def test_packs_of_any_length_share_one_set_of_graphs(opened, activations):
    plain, compiled = opened(False, activations), opened(True, activations)
    counters.clear()
    graphs = []
    for lengths in PACKS:
        truth, found = gradients(plain, lengths), gradients(compiled, lengths)
        assert max(float((found[name] - truth[name]).norm() / truth[name].norm()) for name in truth) <= 1e-5
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [graphs[0]] * len(PACKS)


@pytest.mark.parametrize("activations", get_args(Activations))
def test_all_layers_share_one_set_of_graphs(activations, monkeypatch):
    """With a set for each, a model of more layers than torch.compile's limit would run uncompiled."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    graphs = []
    for layers in (1, 12):
        torch._dynamo.reset()
        counters.clear()
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=50, num_hidden_layers=layers, **shape)).train()
        model.set_attn_implementation(NAME)
        compile_layers(model)
        save_activations(model, activations, torch.device("cpu"))
        layout = pack_layout([5, 9], torch.device("cpu"))
        model(input_ids=torch.arange(14)[None], attention_mask=None, use_cache=False, layout=layout).logits.mean().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    AttentionInterface.register(NAME, packed_attention)
    torch._dynamo.reset()
    assert graphs[0] == graphs[1] > 1
