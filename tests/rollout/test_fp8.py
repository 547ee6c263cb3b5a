"""Weights in 8 bits: the engine computes with them, and rounds anew whatever weights it is given."""

import numpy as np
import pytest
import torch
from tiny_models import generate, prompt, requests_for

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.errors import Refused
from polaris.rollout.engine import check_engine

HALF = ModelConfig(dtype="bfloat16")
REQUESTS = requests_for(prompt(5), prompt(90), samples=4)


@pytest.mark.vllm
def test_new_weights_are_rounded_as_those_of_a_checkpoint(build, models):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    if not torch.cuda.is_available() and not torch.cpu._is_amx_tile_supported():
        pytest.skip("vLLM has 8-bit floats on CPUs with AMX alone")
    plain = build("vllm", "A", model=HALF)
    engine, other = (build("vllm", name, model=HALF, quantization="fp8") for name in "AB")
    drawn = generate(plain, REQUESTS)
    gaps = []
    for one in drawn:
        tokens = (*REQUESTS[drawn.index(one)].prompt_tokens, *one.tokens.tolist())
        gaps.append(np.abs(engine.score(tokens) - plain.score(tokens)).mean())
    assert 0.005 < np.mean(gaps) < 0.3, "8 bits are less than 16, and no other model"
    first = generate(engine, REQUESTS)
    for version, name, truth in ((1, "B", generate(other, REQUESTS)), (2, "A", first)):
        engine.load_weights(models.load(name).named_parameters(), version)
        for found, expected in zip(generate(engine, REQUESTS), truth, strict=True):
            assert np.array_equal(found.tokens, expected.tokens)
            assert np.array_equal(found.logprobs, expected.logprobs)


def test_what_eight_bits_do_not_go_with():
    eight = RolloutConfig(quantization="fp8")
    for settings in ({"algorithm": AlgorithmConfig(correction="off")}, {"model": ModelConfig(dtype="float16")}):
        with pytest.raises(Refused, match=r'algorithm\.correction to "tis" or "mask" and model\.dtype to "bfloat16"'):
            RunConfig(rollout=eight, **settings)
    with pytest.raises(Refused, match=r"vLLM engines of the job, not by rollout\.engine = 'transformers'"):
        RolloutConfig(quantization="fp8", engine="transformers")
    with pytest.raises(Refused, match=r"not by rollout\.servers"):
        RolloutConfig(quantization="fp8", placement="separate", servers=("http://host:8000",))


def test_without_vllm_there_are_no_eight_bits(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"rollout\.quantization = 'fp8' needs vLLM"):
        check_engine(RolloutConfig(quantization="fp8"))
