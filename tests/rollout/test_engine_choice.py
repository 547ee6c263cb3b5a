import re
import subprocess
import sys
from contextlib import nullcontext

import pytest

from polaris.config.rollout import RolloutConfig
from polaris.rollout import engine
from polaris.rollout.types import request_seed
from polaris.run.checks import _check_store


def test_seed_is_a_function_of_every_field():
    fields = {"run_seed": 0, "stream": "train", "step": 3, "prompt_id": "p1", "sample": 2}
    seed = request_seed(**fields)
    assert seed == request_seed(**fields) == 6731000654816022006
    assert 0 <= seed < 2**63
    for change in ({"run_seed": 1}, {"stream": "eval"}, {"step": 31}, {"prompt_id": "p12"}, {"sample": 1}):
        assert request_seed(**fields | change) != seed
    assert request_seed(1, "train", 11, "1", 1) != request_seed(1, "train", 1, "11", 1)


def test_missing_vllm_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert engine.check_engine(RolloutConfig(engine="auto")) == "transformers"
    with pytest.raises(ValueError, match=r"pip install 'vllm>="):
        engine.check_engine(RolloutConfig(engine="vllm"))
    with pytest.raises(ValueError, match="tensor_parallel"):
        engine.check_engine(RolloutConfig(engine="auto", tensor_parallel=2))


def test_an_engine_that_cannot_take_weights_in_flight_has_no_ranks_of_its_own():
    separate = {"placement": "separate", "engine_ranks": 1}
    with pytest.raises(ValueError, match=r"'transformers' cannot take them; install vLLM, or set rollout\.placement"):
        engine.check_engine(RolloutConfig(engine="transformers", **separate))
    with pytest.raises(ValueError, match=r"'broken_engines:Order' lacks submit_first, exchange_weights; polaris\.rollout\.types\.InFlight"):
        engine.check_engine(RolloutConfig(engine="broken_engines:Order", **separate))
    assert engine.check_engine(RolloutConfig(engine="broken_engines:Exchanges", **separate)) == "broken_engines:Exchanges"


def test_choosing_imports_neither_torch_nor_vllm():
    code = (
        "import sys; from polaris.rollout.engine import check_engine; from polaris.config.schema import RolloutConfig; "
        "check_engine(RolloutConfig()); assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


OWN = """
from polaris.rollout.transformers_engine import TransformersEngine
from polaris.rollout.types import Engine

class Slower(TransformersEngine):
    def generate(self, requests, sampling, **hooks):
        return super().generate(requests, sampling, **hooks)

class Other(TransformersEngine):
    def step(self):
        return super().step()

class Plain(Engine):
    def __init__(self, folder, *, model, rollout, max_model_len, seed, rope): ...
    version = generate = score = load_weights = sleep = wake = close = lambda self: None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_engines.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "Plain",
            r"lacks running, waiting, tokens, submit, step, abort; remove it, or write what polaris\.rollout\.types\.Stepwise asks for",
        ),
        ("Slower", "changes generate, but not step"),
    ],
)
def test_an_engine_that_cannot_be_cut_off_is_refused_where_a_step_begins_more_prompts_than_it_takes(own, name, why):
    assert engine.check_engine(RolloutConfig(engine=f"own_engines:{name}")) == f"own_engines:{name}"
    with pytest.raises(
        ValueError, match=rf"rollout\.oversample = 1\.25 cuts responses off, for which rollout\.engine = 'own_engines:{name}' {why}"
    ):
        engine.check_engine(RolloutConfig(engine=f"own_engines:{name}", oversample=1.25))


def test_an_engine_that_steps_is_asked_for_steps_unless_it_changes_generate_alone(own):
    import own_engines

    engine.check_engine(RolloutConfig(engine="own_engines:Other", oversample=1.25))
    found = {
        name: engine.is_stepwise(object.__new__(getattr(own_engines, name))) for name in ("Slower", "Other", "Plain", "TransformersEngine")
    }
    assert found == {"Slower": False, "Other": True, "Plain": False, "TransformersEngine": True}


def test_trainers_of_servers_outside_the_job_need_no_engine(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert engine.check_engine(RolloutConfig(placement="separate", servers=("http://node:8000",))) == "vllm"


@pytest.mark.parametrize(
    ("address", "url", "said"),
    [
        (None, "http://node:8000", "start it with `torchrun"),
        ("localhost", "http://node:8000", "http://node:8000 cannot reach torchrun's store at localhost; give torchrun"),
        ("127.0.0.1", "http://127.0.0.1:8000", None),
        ("trainer", "http://node:8000", None),
    ],
)
def test_servers_must_reach_the_store(address, url, said, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    if address is not None:
        monkeypatch.setenv("MASTER_ADDR", address)
    with pytest.raises(ValueError, match=re.escape(said)) if said else nullcontext():
        _check_store([url])
