"""Tiny random models of every architecture: the default configuration of a model type, made small."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

SIZES: dict[str, int] = {
    "vocab_size": 128,
    "hidden_size": 128,
    "n_embd": 128,
    "d_model": 128,
    "word_embed_proj_dim": 128,
    "intermediate_size": 96,
    "n_inner": 96,
    "ffn_dim": 96,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "max_seq_len": 512,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
"""What makes a configuration small, under every name that model types have for it. vLLM on CPU takes no smaller heads."""

TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
_LISTS = ("layer_types", "mlp_layer_types", "attention_types", "no_rope_layers", "indexer_types")


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The type's default configuration with the sizes of `SIZES` where it has them, and `changes`."""
    default = type(AutoConfig.for_model(model_type))
    own = default().to_dict()
    named = set(own) | set(default.attribute_map)
    sizes = {name: value for name, value in SIZES.items() if name in own and name not in default.attribute_map and own[name] is not None}
    sizes |= {} if "head_dim" not in own or "head_dim" in default.attribute_map else {"head_dim": 32}
    layers = {name: None for name in _LISTS if name in own and name not in changes}
    given = {name: value for name, value in changes.items() if name in named or name.startswith("_") or name == "architectures"}
    assert given.keys() == changes.keys(), sorted(set(changes) - set(given))
    return default(**sizes | TOKENS | layers | changes)


def tiny_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Random float32 weights under which next-token distributions are neither flat nor certain."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.08)
            elif "norm" not in name and "ln" not in name:
                parameter.normal_(0, 0.3)
    return model.eval()
