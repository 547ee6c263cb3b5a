import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from polaris.config.schema import ModelConfig, RolloutConfig
from polaris.rollout.engine import create_engine
from polaris.sync.probe import WeightSyncError, check_gap, logprob_gap, probe_tokens
from polaris.sync.publish import publish

PROBE = probe_tokens(96)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def logprobs(model):
    ids = torch.tensor([PROBE])
    return model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()


@pytest.mark.parametrize("kind", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_probe_tells_published_from_stale_weights(kind, policy):
    if kind == "vllm":
        pytest.importorskip("vllm")
    rollout = RolloutConfig(engine=kind, kv_cache_mib=16, max_concurrent=4)
    engine = create_engine(rollout, policy, ModelConfig(dtype="float32"), max_model_len=64, seed=0)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    assert logprob_gap(engine, PROBE, logprobs(model)) < 1e-4
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    stale = logprob_gap(engine, PROBE, logprobs(model))
    with pytest.raises(WeightSyncError, match=r"version 4.*sync\.probe_tolerance"):
        check_gap(stale, 1e-3, 4)
    publish(engine, model.named_parameters(), 4)
    assert engine.version == 4
    check_gap(logprob_gap(engine, PROBE, logprobs(model)), 1e-4, 4)
    engine.close()


def test_non_finite_logprobs_are_a_gap(policy):
    class Broken:
        def score(self, tokens):
            return np.full(len(tokens) - 1, np.nan, np.float32)

    gap = logprob_gap(Broken(), PROBE, np.zeros(len(PROBE) - 1))
    with pytest.raises(WeightSyncError):
        check_gap(gap, 0.5, 1)


def test_probe_tokens_are_fixed_and_spread():
    assert probe_tokens(151936) == probe_tokens(151936)
    for vocab, length in ((96, 48), (151936, 64), (128, 32)):
        tokens = probe_tokens(vocab, length)
        assert len(tokens) == length
        assert 0 <= min(tokens) < vocab / 8
        assert vocab * 7 / 8 < max(tokens) < vocab
        assert len(set(tokens)) > length / 2
