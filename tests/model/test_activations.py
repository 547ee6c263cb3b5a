"""What each kind of `memory.activations` leaves between forward and backward; that gradients stay the same is in test_policy."""

import gc
import weakref

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from polaris.errors import Refused
from polaris.model.activations import _Input, save_activations
from polaris.model.architecture import decoder_layers

CPU = torch.device("cpu")
TOKENS = torch.arange(24)[None]


@pytest.fixture
def model():
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=50, num_hidden_layers=3, **shape)).train()


def watched(model):
    """Weak references to the input of each layer, and how often each MLP was asked."""
    inputs, asked = [], []
    for layer in decoder_layers(model):
        layer.mlp.register_forward_pre_hook(lambda module, arguments: asked.append(module))
        layer.input_layernorm.register_forward_pre_hook(lambda module, arguments: inputs.append(weakref.ref(arguments[0])))
    return inputs, asked


@pytest.mark.parametrize(("kind", "alive", "again"), [("keep", 3, 0), ("recompute_mlp", 3, 3), ("recompute", 3, 3), ("offload", 0, 3)])
def test_what_is_left_and_what_is_computed_again(model, kind, alive, again):
    save_activations(model, kind, CPU)
    inputs, asked = watched(model)
    loss = model(TOKENS, use_cache=False).logits.float().square().mean()
    assert sum(reference() is not None for reference in inputs) == alive
    before = len(asked)
    loss.backward()
    assert len(asked) - before == again


def test_the_mlp_alone_is_computed_again(model):
    asked = []
    for layer in decoder_layers(model):
        layer.mlp.act_fn.register_forward_hook(lambda *_: asked.append("mlp"))
        layer.self_attn.register_forward_hook(lambda *_: asked.append("attention"))
    save_activations(model, "recompute_mlp", CPU)
    model(TOKENS, use_cache=False).logits.float().mean().backward()
    assert (asked.count("mlp"), asked.count("attention")) == (6, 3)


def test_a_forward_without_a_backward_leaves_nothing(model, monkeypatch):
    kept = []
    monkeypatch.setattr(_Input, "bring", lambda self, bring=_Input.bring: (kept.append(weakref.ref(self)), bring(self)))
    save_activations(model, "offload", CPU)
    model(TOKENS, use_cache=False)
    model(TOKENS, use_cache=False).logits.float().mean().backward()
    # Each input is asked for by its own layer, and ahead by the one behind it; the first layer asks for nothing of the forward before.
    assert len(kept) == 3 + 2
    gc.collect()
    assert not any(reference() for reference in kept)


def test_a_model_whose_layers_have_no_mlp_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50))
    for layer in decoder_layers(model):
        layer.feed_forward = layer.mlp
        del layer.mlp
    with pytest.raises(Refused, match='set it to "recompute"'):
        save_activations(model, "recompute_mlp", CPU)


@pytest.mark.gpu
def test_on_a_gpu_inputs_wait_in_host_memory():
    layers, tokens, width = 12, 8192, 1024
    shape = {"hidden_size": width, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128}
    found = {}
    for kind in ("recompute", "offload"):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=50, num_hidden_layers=layers, **shape)).to("cuda", torch.bfloat16).train()
        save_activations(model, kind, torch.device("cuda"))
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            model.zero_grad()
            model(torch.arange(tokens, device="cuda")[None] % 50, use_cache=False).logits.float().square().mean().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        found[kind] = torch.cuda.max_memory_allocated(), gradients
        del model
        gc.collect()
        torch.cuda.empty_cache()
    assert all(torch.equal(one, other) for one, other in zip(*(gradients for _, gradients in found.values()), strict=True))
    saved, of_inputs = found["recompute"][0] - found["offload"][0], (layers - 3) * tokens * width * 2
    assert saved > 0.8 * of_inputs, f"{saved / 2**20:.0f} MiB less, and inputs are {of_inputs / 2**20:.0f}"
