import functools
import gc
import importlib.util
from contextlib import contextmanager, nullcontext

import pytest
from tiny_models import MAX_LEN, VLLM, Models

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout.engine import create_engine

FLOAT32 = ModelConfig(dtype="float32")


@contextmanager
def schedules_ahead():
    """vLLM's CPU platform turns asynchronous scheduling off, whatever is asked; its scheduler and model runner can do it."""
    from vllm.platforms import current_platform

    platform, original = type(current_platform), type(current_platform).check_and_update_config

    def check(config):
        original(config)
        config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "check_and_update_config", staticmethod(check))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return Models(tmp_path_factory.mktemp("models")).write()


@pytest.fixture(scope="session")
def build(models):
    """Engines by (kind, model name, **rollout settings); all are closed at the end."""
    engines = []

    def make(kind, name, model=FLOAT32, max_model_len=MAX_LEN, **settings):
        engine, _, ahead = kind.partition(", ")
        rollout = RolloutConfig(engine=engine, kv_cache_mib=32, **settings)
        with schedules_ahead() if ahead else nullcontext():
            engines.append(create_engine(rollout, models.root / name, model, max_model_len=max_model_len, seed=0))
        if ahead:
            core = engines[-1]._llm.engine_core.engine_core
            assert core.batch_queue_size == 2
            # vLLM 0.24's stand-in for a CUDA stream lacks this.
            core.model_executor.driver_worker.worker.model_runner.async_output_copy_stream.wait_stream = lambda stream: None
        return engines[-1]

    yield make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda generation=2: 0)  # half a second for each, at the end of the process
        for engine in engines:
            engine.close()


@pytest.fixture(scope="session")
def shared(build):
    return functools.cache(lambda kind, name: build(kind, name, max_concurrent=64))


@pytest.fixture(params=["transformers", VLLM])
def kind(request):
    if request.param != "transformers" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    return request.param


@pytest.fixture
def engine(kind, shared, models):
    """An engine that serves model A as version 0."""
    engine = shared(kind, "A")
    engine.load_weights(models.load("A").named_parameters(), 0)
    return engine
