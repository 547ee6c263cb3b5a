import subprocess
import sys

import pytest

from polaris.config.rollout import RolloutConfig
from polaris.rollout import engine
from polaris.rollout.types import request_seed


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


def test_choosing_imports_neither_torch_nor_vllm():
    code = (
        "import sys; from polaris.rollout.engine import check_engine; from polaris.config.schema import RolloutConfig; "
        "check_engine(RolloutConfig()); assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
