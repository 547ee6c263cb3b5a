import functools
import importlib.util

import pytest
from tiny_models import MAX_LEN, Models

from polaris.config.schema import ModelConfig, RolloutConfig
from polaris.rollout.engine import create_engine

FLOAT32 = ModelConfig(dtype="float32")


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return Models(tmp_path_factory.mktemp("models")).write()


@pytest.fixture(scope="session")
def build(models):
    """Engines by (kind, model name, **rollout settings); all are closed at the end."""
    engines = []

    def make(kind, name, model=FLOAT32, max_model_len=MAX_LEN, **settings):
        rollout = RolloutConfig(engine=kind, kv_cache_mib=32, **settings)
        engines.append(create_engine(rollout, models.root / name, model, max_model_len=max_model_len, seed=0))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def shared(build):
    return functools.cache(lambda kind, name: build(kind, name, max_concurrent=64))


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def kind(request):
    if request.param == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    return request.param


@pytest.fixture
def engine(kind, shared, models):
    """An engine that serves model A as version 0."""
    engine = shared(kind, "A")
    engine.load_weights(models.load("A").named_parameters(), 0)
    return engine
