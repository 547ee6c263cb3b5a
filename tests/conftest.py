"""What tests of several folders share."""

import pytest
import torch
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="module")
def tiny_qwen3(tmp_path_factory):
    """Folder of a tiny Qwen3 with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # takes seconds, and most tests need none

    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path
