"""Arithmetic of one GPU, in bytes per parameter."""

import re

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.run.memory import activation_bytes, check_memory

H100, H200 = 79 << 30, 139 << 30


@pytest.mark.parametrize(("billions", "ranks", "total"), [(4.0, 8, H100), (4.0, 4, H100), (7.6, 8, H200), (32.8, 64, H100), (1.7, 2, H200)])
def test_runs_that_fit(billions, ranks, total):
    check_memory(int(billions * 1e9), ranks, 0.8, total)


@pytest.mark.parametrize(("billions", "ranks", "total"), [(1.7, 1, H100), (4.0, 2, H100), (4.0, 1, H200), (7.6, 4, H100)])
def test_an_engine_that_takes_too_much_is_told_how_much_it_may(billions, ranks, total):
    parameters = int(billions * 1e9)
    with pytest.raises(ValueError, match=r"set it to 0\.\d+ or less") as refused:
        check_memory(parameters, ranks, 0.8, total)
    fraction = float(re.search(r"set it to ([\d.]+)", str(refused.value))[1])
    check_memory(parameters, ranks, fraction, total)
    with pytest.raises(ValueError, match="or start more ranks"):
        check_memory(parameters, ranks, fraction + 0.05, total)


@pytest.mark.parametrize(("billions", "ranks"), [(32.8, 4), (7.6, 1), (70.0, 8)])
def test_training_that_fits_nowhere_is_told_how_many_ranks_it_needs(billions, ranks):
    parameters = int(billions * 1e9)
    with pytest.raises(ValueError, match=r"start \d+ ranks or more") as refused:
        check_memory(parameters, ranks, 0.3, H100)
    needed = int(re.search(r"start (\d+) ranks", str(refused.value))[1])
    check_memory(parameters, needed, 0.01, H100)
    with pytest.raises(ValueError, match="ranks or more"):
        check_memory(parameters, needed - 1, 0.01, H100)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("total", "activations", "fraction", "refused"),
    [
        (8 * GIB, 5 * GIB, 0.0, "activations of one pack need 5 GiB of each GPU, which has 8"),
        (8 * GIB + 1, 5 * GIB, 0.0, "weights, gradients and optimizer"),
        (24 * GIB, 5 * GIB, 0.0, "need 24 GiB of each GPU, which has 24; start 3 ranks"),
        (24 * GIB + 1, 5 * GIB, 0.0, None),
        (30 * GIB, 0, 0.5, None),
        (30 * GIB - 2, 0, 0.5, "gpu_memory_fraction = 0.5 leaves too little beside the 15 GiB"),
        (20 * GIB, 0, 0.3, "start more ranks"),
    ],
)
def test_limits_are_exact(total, activations, fraction, refused):
    """2 GiB of parameters on two ranks: 12 GiB are kept and 16 trained with on each, and 3 are reserved."""
    if refused is None:
        check_memory(2 * GIB, 2, fraction, total, activations)
        return
    with pytest.raises(ValueError, match=re.escape(refused)):
        check_memory(2 * GIB, 2, fraction, total, activations)


def test_what_a_pack_keeps_is_exact():
    """A token and layer: input 3 x 8, queries and keys and values and output (2 x 4 + 2 x 2) x 6, MLP 3 x 10; and the head twice."""
    config = Qwen3Config(
        vocab_size=100, hidden_size=8, intermediate_size=10, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2, head_dim=6
    )
    layer, head = 7 * (3 * 8 + 12 * 6 + 3 * 10), 2 * 100 * 8
    assert activation_bytes(config, 7, 4, recompute=False) == 4 * (5 * layer + head)
    assert activation_bytes(config, 7, 4, recompute=True) == 4 * (5 * 7 * 8 + layer + head)


SHAPES = {"0.6B": (1024, 3072, 16), "4B": (2560, 9728, 32), "8B": (4096, 12288, 32), "32B": (5120, 25600, 64)}


def shape(name, layers):
    hidden, intermediate, heads = SHAPES[name]
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_attention_heads": heads, "num_key_value_heads": 8}
    return Qwen3Config(vocab_size=151_936, num_hidden_layers=layers, head_dim=128, attn_implementation="sdpa", **sizes)


def kept_by_a_layer(config, tokens):
    """Bytes that transformers' own layer, without fused modules, saves for its backward in bfloat16, its weights left out."""
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16).model
        hidden = torch.empty(1, tokens, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        table = model.rotary_emb(hidden, torch.arange(tokens)[None])
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.layers[0](hidden, position_embeddings=table, attention_mask=None)
    return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in weights)


@pytest.mark.parametrize("name", SHAPES)
def test_activations_are_counted_from_below(name):
    tokens, one, two = 8, shape(name, 1), shape(name, 2)
    counted = activation_bytes(two, tokens, 2, recompute=False) - activation_bytes(one, tokens, 2, recompute=False)
    measured = kept_by_a_layer(one, tokens)
    print(f"{name}: counted {counted / tokens:,.0f} bytes a token and layer, measured without fused modules {measured / tokens:,.0f}")
    assert 0.4 * measured < counted < measured
    checkpoint = activation_bytes(two, tokens, 2, recompute=True) - activation_bytes(one, tokens, 2, recompute=True)
    assert checkpoint == 2 * tokens * one.hidden_size


def test_long_sequences_do_not_fit_beside_the_state():
    long = activation_bytes(shape("4B", 36), 65_536, 2, recompute=True)
    assert 18 < long / 2**30 < 26
    with pytest.raises(ValueError, match=r"4.0B parameters on 1 ranks and the activations.*tokens_per_pack"):
        check_memory(int(4e9), 1, 0.0, H100, long)
    check_memory(int(4e9), 1, 0.0, H200, long)
    with pytest.raises(ValueError, match="activations of one pack need"):
        check_memory(int(32e9), 64, 0.0, H100, activation_bytes(shape("32B", 64), 262_144, 2, recompute=True))


def test_an_engine_without_a_share_of_its_own_is_not_refused_one():
    check_memory(int(1.7e9), 1, 0.0, H100)
    check_memory(2 * GIB, 2, 0.0, 19 * GIB + 1)  # no activations are counted where none are told
