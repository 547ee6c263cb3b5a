"""The transformers engine on families with a head, positions or names of their own: log-probs of one pass, before and after new weights."""

import numpy as np
import pytest
import torch
from tiny_models import generate, prompt, requests_for

from benchmarks.models.tiny import tiny_config, tiny_model
from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout.engine import check_model, create_engine
from polaris.rollout.types import EngineRefused

FAMILIES = {
    "granite": {"logits_scaling": 4.0},
    "phi": {},
    "cohere": {"logit_scale": 0.25},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "gpt2": {},
    "opt": {},
    "gpt_neox": {},
    "olmo2": {},
    "phi3": {},
}


@torch.no_grad()
def truth(model, tokens, temperature=1.0):
    """Log-probs [n - 1] of tokens[1:], by transformers alone."""
    ids = torch.tensor([list(tokens)])
    return (model(ids).logits[0, :-1] / temperature).log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()


def check(engine, model):
    long = prompt(90, 5)
    np.testing.assert_allclose(engine.score(long), truth(model, long), atol=1e-4)
    requests = requests_for(prompt(1), prompt(17, 9), prompt(40, 3), samples=2)
    for request, rollout in zip(requests, generate(engine, requests, 1.3, max_tokens=12), strict=True):
        whole = truth(model, (*request.prompt_tokens, *rollout.tokens), 1.3)
        np.testing.assert_allclose(rollout.logprobs, whole[len(request.prompt_tokens) - 1 :], atol=1e-4)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_log_probs_are_those_of_transformers(model_type, tmp_path):
    config = tiny_config(model_type, **FAMILIES[model_type])
    old, new = tiny_model(config, seed=0), tiny_model(config, seed=1)
    old.save_pretrained(tmp_path)
    rollout = RolloutConfig(engine="transformers", max_concurrent=4)
    engine = create_engine(rollout, tmp_path, ModelConfig(dtype="float32"), max_model_len=128, seed=0)
    try:
        check(engine, old)
        engine.load_weights(new.named_parameters(), 1)
        check(engine, new)
    finally:
        engine.close()


@pytest.mark.vllm
def test_a_model_that_vllm_does_not_run_is_refused_before_its_weights_are_read(tmp_path):
    pytest.importorskip("vllm")
    config = tiny_config("qwen3")
    config.architectures = ["NoSuchForCausalLM"]
    config.save_pretrained(tmp_path)
    settings = {"max_model_len": 128, "rope": RopeConfig()}
    with pytest.raises(EngineRefused, match=r'vLLM cannot run .*; set rollout\.engine = "transformers".*NoSuchForCausalLM') as refused:
        check_model(RolloutConfig(engine="vllm", kv_cache_mib=16), tmp_path, ModelConfig(dtype="float32"), **settings)
    assert "\n" not in str(refused.value)
    check_model(RolloutConfig(engine="transformers"), tmp_path, ModelConfig(dtype="float32"), **settings)


@pytest.mark.vllm
@pytest.mark.parametrize("model_type", ["olmo2", "phi", "gpt_neox"])
def test_a_model_that_vllm_runs_by_the_trainers_own_classes_is_refused(model_type, tmp_path):
    """vLLM 0.32 decorates the class: a step of such a model ended in a traceback about `do_not_compile`."""
    registry = pytest.importorskip("vllm.model_executor.models.registry").ModelRegistry
    model = tiny_model(tiny_config(model_type))
    if not registry.models[type(model).__name__].module_name.endswith(".transformers"):
        pytest.skip("this vLLM has code of its own for it")
    model.save_pretrained(tmp_path)
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=16)
    with pytest.raises(EngineRefused, match=r'has no code of its own for .*set rollout\.engine = "transformers"'):
        check_model(rollout, tmp_path, ModelConfig(dtype="float32"), max_model_len=128, rope=RopeConfig())
