"""Model FLOPs against torch's own count of what a transformers model runs, and the published sizes of a real one."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from polaris.config.model import LoraConfig
from polaris.model.adapters import add_adapters
from polaris.model.flops import config_flops, model_flops, peak_flops

SIZES = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
QWEN3_600M = Qwen3Config(
    vocab_size=151936,
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)


def qwen3(**changed):
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True, **changed))


def llama(**changed):
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=4, tie_word_embeddings=False, **changed))


def counted(model, sequences, length, predicted, backward):
    """What torch counts; it takes the whole square of attention's scores, which the mathematical form of attention does compute."""
    tokens = torch.arange(sequences * length).remainder(97).view(sequences, length)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        hidden = model.model(input_ids=tokens).last_hidden_state.flatten(0, 1)[:predicted]
        logits = model.lm_head(hidden)
        if backward:
            logits.logsumexp(-1).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("build", [qwen3, llama])
def test_as_many_as_torch_counts_but_for_the_upper_triangle(build, backward):
    model, sequences, length, predicted = build(), 3, 40, 75
    flops, width = model_flops(model), 2 * 4 * (32 if build is qwen3 else 16)
    triangle = (3 if backward else 1) * 2 * width * sequences * length**2
    own = (flops.training if backward else flops.forward)([length] * sequences, predicted)
    assert own + triangle == pytest.approx(counted(model, sequences, length, predicted, backward), rel=1e-3)


def test_frozen_matrices_have_no_gradients_of_weights():
    model = qwen3()
    for name, one in model.named_parameters():
        one.requires_grad_("embed" in name or "q_proj" in name)
    flops = model_flops(model)
    triangle = 3 * 2 * 2 * 4 * 32 * 40**2
    assert flops.head_trained  # tied to the embedding
    assert flops.training([40], 40) + triangle == pytest.approx(counted(model, 1, 40, 40, True), rel=1e-3)


def test_of_a_real_model_without_its_weights():
    flops = config_flops(QWEN3_600M)
    assert flops.layers + flops.head == 595_984_384  # prime-rl's test of its own count, tests/unit/train/test_perf.py
    assert flops.training([1000] * 2, 2000) == 6 * 2000 * 595_984_384 + 6 * 28 * 2048 * 2 * 1000**2


@pytest.mark.parametrize(
    ("card", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("Tesla V100-SXM2-16GB", None),
        ("CPU", None),
    ],
)
def test_the_rate_of_a_card_is_its_own(card, rate):
    assert peak_flops(card) == rate


def test_an_adapter_counts_as_what_is_trained():
    model, whole = qwen3(), model_flops(qwen3())
    add_adapters(model, LoraConfig(rank=4, targets=("q_proj", "down_proj")), torch.float32)
    adapters = 2 * (4 * (64 + 128) + 4 * (96 + 64))  # two layers
    flops = model_flops(model)
    assert (flops.layers, flops.layers_trained, flops.head_trained) == (whole.layers + adapters, adapters, False)
    assert flops.training([40], 40) == whole.training([40], 40) - 2 * 40 * (whole.layers + whole.head) + 6 * 40 * adapters
