"""Sleep, wake and reload: what the old weights have made is never used again, and no half of it passes for the whole."""

import numpy as np
import pytest
import torch
from tiny_models import AHEAD, MAX_LEN, VLLM, generate, prompt, requests_for

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout.engine import create_engine
from polaris.rollout.types import GenerationInterrupted

REQUESTS = requests_for(prompt(5), prompt(300), samples=4)


def poison(engine):
    """What an engine that has slept on CUDA finds in its memory: anything. Attention on CPU multiplies values behind a sequence by 0."""
    runner = engine._llm.model_executor.driver_worker.worker.model_runner
    with torch.no_grad():
        for parameter in runner.model.parameters():
            parameter.fill_(torch.nan)
        for cache in runner.kv_caches:
            cache.fill_(1e4)


def check_unusable(engine):
    for ask in (lambda: generate(engine, REQUESTS), lambda: engine.score(prompt(9)), lambda: engine.rotary_table([0])):
        with pytest.raises(RuntimeError, match="load weights first"):
            ask()


@pytest.fixture
def live(monkeypatch):
    """On CPU vLLM packs weights away from the parameters; without oneDNN it computes with the parameters, as on CUDA."""
    operations = pytest.importorskip("vllm._custom_ops")
    monkeypatch.setattr(operations, "_supports_onednn", False)


@pytest.mark.parametrize("kind", [VLLM, AHEAD], indirect=True)
@pytest.mark.parametrize("name", ["A", "UA"], ids=["tied", "untied"])
def test_nothing_of_before_is_used_after(kind, name, live, build, models):
    engine = build(kind, name)
    first = generate(engine, REQUESTS)
    for version, stopped in enumerate([False, True, True], start=1):
        if stopped:
            polls = iter(range(100))
            with pytest.raises(GenerationInterrupted):
                generate(engine, REQUESTS, max_tokens=40, should_stop=lambda polls=polls: next(polls) == 5)
        engine.sleep()
        engine.sleep()
        poison(engine)
        check_unusable(engine)
        with pytest.raises(RuntimeError, match="wake it before"):
            engine.load_weights(models.load(name).named_parameters(), version)
        engine.wake()
        engine.wake()
        check_unusable(engine)
        assert engine.asleep_bytes == 0
        engine.load_weights(models.load(name).named_parameters(), version)
        for before, after in zip(first, generate(engine, REQUESTS), strict=True):
            np.testing.assert_array_equal(before.tokens, after.tokens)
            np.testing.assert_allclose(before.logprobs, after.logprobs, atol=1e-5)
            assert after.version == version
    engine.close()


@pytest.mark.gpu
@pytest.mark.vllm
def test_a_gpu_gets_its_memory_back(models):
    """Run it alone (`pytest -m gpu tests/rollout`): vLLM's sleep mode takes one engine per process."""
    pytest.importorskip("vllm")
    rollout = RolloutConfig(engine="vllm", gpu_memory_fraction=0.1, max_concurrent=64)
    engine = create_engine(rollout, models.root / "A", ModelConfig(dtype="float32"), max_model_len=MAX_LEN, seed=0)
    first = generate(engine, REQUESTS)
    for version in (1, 2):
        free = torch.cuda.mem_get_info()[0]
        engine.sleep()
        freed = torch.cuda.mem_get_info()[0] - free
        assert freed > 1 << 30
        assert 0.9 * freed < engine.asleep_bytes <= min(freed, torch.cuda.memory_allocated())
        engine.wake()
        engine.load_weights(models.load("A").named_parameters(), version)
        assert engine.asleep_bytes == 0
        assert abs(torch.cuda.mem_get_info()[0] - free) < 256 << 20
        for before, after in zip(first, generate(engine, REQUESTS), strict=True):
            np.testing.assert_array_equal(before.tokens, after.tokens)
    engine.close()
