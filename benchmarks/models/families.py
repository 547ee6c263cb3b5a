"""The text architectures that people train most, as their published checkpoints set them up; `changes` make the tiny one like them."""

from __future__ import annotations

from typing import Any

MLA = {"num_key_value_heads": 4}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {}),
    "Qwen2": ("qwen2", {}),
    "Qwen3": ("qwen3", {}),
    "Mistral": ("mistral", {"sliding_window": None}),
    "Ministral 3": ("ministral3", {}),
    "Gemma": ("gemma", {}),
    "Gemma 2": ("gemma2", {}),
    "Gemma 3 (text)": ("gemma3_text", {}),
    "Phi-2": ("phi", {}),
    "Phi-3, Phi-4": ("phi3", {"resid_pdrop": 0.1}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", {}),
    "Granite": ("granite", {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22}),
    "Command R (Cohere)": ("cohere", {}),
    "Command R7B (Cohere 2)": ("cohere2", {}),
    "SmolLM3": ("smollm3", {}),
    "EXAONE 4": ("exaone4", {}),
    "GLM-4 (0414)": ("glm4", {}),
    "StarCoder2": ("starcoder2", {}),
    "StableLM 2": ("stablelm", {}),
    "Nemotron": ("nemotron", {"head_dim": 32, "num_key_value_heads": 2}),
    "Seed-OSS": ("seed_oss", {}),
    "HunYuan (dense)": ("hunyuan_v1_dense", {}),
    "Ernie 4.5": ("ernie4_5", {}),
    "GPT-2": ("gpt2", {}),
    "GPT-NeoX, Pythia": ("gpt_neox", {}),
    "OPT": ("opt", {}),
    "GPT-J": ("gptj", {"rotary_dim": 8}),
    "Bloom": ("bloom", {}),
    "Falcon": ("falcon", {}),
    "MPT": ("mpt", {}),
    "Mixtral": ("mixtral", {}),
    "Qwen2-MoE": ("qwen2_moe", {}),
    "Qwen3-MoE": ("qwen3_moe", {}),
    "DeepSeek-V3": ("deepseek_v3", MLA),
    "gpt-oss": ("gpt_oss", {}),
    "MiniCPM3": ("minicpm3", MLA),
    "Mamba 2": ("mamba2", {"num_heads": 16, "head_dim": 16}),
    "Falcon-H1": ("falcon_h1", {}),
}
"""Name -> (model type of transformers, changes to the tiny configuration)."""
