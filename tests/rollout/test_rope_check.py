"""Our formulas against those of transformers and vLLM, and what the check at start lets through and stops."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.model.load import build_model, load_weights
from polaris.model.rope import Rope, resolve_rope, rotary_table
from polaris.model.rope_check import RopeMismatch, attention_factor, check_rope, inverse_frequencies
from polaris.rollout.engine import create_engine

VOCAB, ORIGINAL = 96, 64
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": ORIGINAL,
    "eos_token_id": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 3e4},
}
VLLM = pytest.param("vllm", marks=pytest.mark.vllm)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    return folder


def build(kind, folder, rope, max_model_len, dtype="float32"):
    if kind == "vllm":
        pytest.importorskip("vllm")
    rollout = RolloutConfig(engine=kind, kv_cache_mib=16, max_concurrent=4)
    return create_engine(rollout, folder, ModelConfig(dtype=dtype), max_model_len=max_model_len, seed=0, rope=rope)


def big(factor, attention, original=32768, theta=1e6, truncate=True):
    """Head and positions of Qwen3-4B."""
    yarn = {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": factor,
        "original_max_position_embeddings": original,
        "attention_factor": attention or 0.1 * np.log(factor) + 1,
        "beta_fast": 32,
        "beta_slow": 1,
        "truncate": truncate,
    }
    return Rope(parameters=yarn, dimensions=128, original_positions=original, max_positions=int(original * factor))


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("attention", [None, 1.0])
@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0])
def test_yarn_is_that_of_transformers(factor, attention, truncate):
    rope = big(factor, attention, truncate=truncate)
    given = {name: value for name, value in rope.parameters.items() if name != "attention_factor" or attention}
    config = Qwen3Config(head_dim=128, max_position_embeddings=rope.max_positions, rope_parameters=given)
    frequencies, theirs = ROPE_INIT_FUNCTIONS["yarn"](config)
    np.testing.assert_allclose(inverse_frequencies(rope), frequencies.numpy(), rtol=1e-6)
    assert attention_factor(rope) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.vllm
@pytest.mark.parametrize("attention", [None, 1.0])
@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0])
def test_yarn_is_that_of_vllm(factor, attention, monkeypatch):
    pytest.importorskip("vllm")
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.yarn_scaling_rope import YaRNScalingRotaryEmbedding

    rope = big(factor, attention)
    monkeypatch.setattr(YaRNScalingRotaryEmbedding, "_compute_cos_sin_cache", lambda self: torch.empty(0))
    options = {} if attention is None else {"attention_factor": attention}
    if options and "attention_factor" not in inspect.signature(YaRNScalingRotaryEmbedding).parameters:
        pytest.skip("this vLLM always takes YaRN's own attention factor; another one is a RopeMismatch when the engine is created")
    with set_current_vllm_config(VllmConfig()):
        module = YaRNScalingRotaryEmbedding(128, 128, 32768, 1e6, True, factor, torch.float32, **options)
    np.testing.assert_allclose(inverse_frequencies(rope), module._compute_inv_freq(factor).numpy(), rtol=1e-6)
    assert attention_factor(rope) == pytest.approx(module.mscale, rel=1e-12)


def test_llama3_is_that_of_transformers(tmp_path):
    config = LlamaConfig(**SIZES | {"head_dim": 64, "max_position_embeddings": 131072, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}})
    config.save_pretrained(tmp_path)
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    np.testing.assert_allclose(inverse_frequencies(resolve_rope(tmp_path)), frequencies.numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rope", [None, LLAMA3, big(1.5, 1.0).parameters], ids=["plain", "llama3", "yarn"])
def test_the_trainers_model_passes_up_to_131072_positions(tmp_path, rope, dtype):
    rope = {"rope_theta": 5e5} | (rope or {"rope_type": "default"})
    LlamaForCausalLM(LlamaConfig(**SIZES | {"max_position_embeddings": 131072, "rope_parameters": rope})).save_pretrained(tmp_path)
    model = build_model(tmp_path)
    load_weights(model, tmp_path, torch.device("cpu"))
    check_rope("trainer", resolve_rope(tmp_path), lambda positions: rotary_table(model, positions, getattr(torch, dtype)))


def other(rope, **changes):
    return dataclasses.replace(rope, parameters=rope.parameters | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [
        {"attention_factor": 1.0},
        {"original_max_position_embeddings": 40960},
        {"factor": 1.6},
        {"rope_theta": 9.9e5},
        {"truncate": False},
        {"rope_type": "default", "attention_factor": 1.0},
    ],
    ids=str,
)
def test_every_setting_that_a_stack_may_read_otherwise_is_seen(changes, dtype):
    asked = big(1.5, None)
    config = Qwen3Config(head_dim=128, rope_parameters=other(asked, **changes).parameters)
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    with pytest.raises(RopeMismatch, match="the trainer's rotary embedding"):
        check_rope("trainer", asked, lambda positions: rotary_table(model, positions, dtype))


@pytest.mark.parametrize("kind", ["transformers", VLLM])
def test_a_manipulated_engine_is_caught(kind, folder):
    settings = RopeConfig(factor=2)
    rope, engine = resolve_rope(folder, settings), build(kind, folder, settings, 128)
    assert check_rope("rollout engine", rope, engine.rotary_table) < 1e-5
    if kind == "vllm":
        model = engine._llm.model_executor.driver_worker.worker.model_runner.model
        model.model.layers[0].self_attn.rotary_emb.cos_sin_cache[64:, 3] += 1e-3
    else:
        engine._model.model.rotary_emb.inv_freq[3] *= 1 + 1e-4
    with pytest.raises(RopeMismatch, match=r"rollout engine's .* frequency 3\."):
        check_rope("rollout engine", rope, engine.rotary_table)
    engine.close()


@pytest.mark.parametrize("kind", ["transformers", VLLM])
def test_an_engine_that_reads_settings_otherwise_does_not_start(kind, folder, monkeypatch):
    """A version that does not know `attention_factor` scales by YaRN's own."""

    def unknown(rope):
        parameters = {name: value for name, value in rope.parameters.items() if name != "attention_factor"}
        return {"rope_parameters": parameters, "max_position_embeddings": rope.max_positions}

    monkeypatch.setattr(Rope, "overrides", property(unknown))
    with pytest.raises(RopeMismatch, match=r"attention factor 1\.04\d+ instead of 1,"):
        build(kind, folder, RopeConfig(factor=1.5, attention_factor=1.0), 96)


def test_more_tokens_than_positions_are_refused(folder):
    with pytest.raises(ValueError, match=r"65 tokens exceed the model's 64 positions.*rope\.max_positions"):
        build("transformers", folder, RopeConfig(), 65)


@pytest.mark.parametrize("kind", ["transformers", VLLM])
@pytest.mark.parametrize(
    "settings",
    [
        RopeConfig(max_positions=200),
        RopeConfig(factor=2, attention_factor=1.0),
        RopeConfig(factor=4, original_positions=32),
        RopeConfig(factor=1.5, max_positions=200),
    ],
    ids=["plain, more positions", "2 without attention factor", "4", "1.5, beyond its positions"],
)
def test_logprobs_beyond_the_original_positions_are_those_of_transformers(kind, settings, folder):
    """vLLM alone ends its table at original positions x factor and reads NaN or rubbish behind it."""
    rope = resolve_rope(folder, settings)
    tokens = np.random.default_rng(0).integers(2, VOCAB, rope.max_positions - 1).tolist()
    engine = build(kind, folder, settings, rope.max_positions)
    found = engine.score(tokens)
    engine.close()
    config = AutoConfig.from_pretrained(folder, **rope.overrides)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    np.testing.assert_allclose(found, logprobs.gather(1, torch.tensor(tokens)[1:, None])[:, 0].numpy(), atol=2e-5)
