"""Sharded adapters against peft's own on transformers' forward: values, gradients, what is merged, and what is left as it was."""

import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from programs import run_ranks
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
import adapters_on_ranks
from update_once import samples

LORA = adapters_on_ranks.LORA


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def found(request, tiny_qwen3, tmp_path_factory):
    file = tmp_path_factory.mktemp("found") / "found.pt"
    run_ranks(request.param, adapters_on_ranks.__file__, tiny_qwen3, file)
    return torch.load(file, weights_only=True)


def of_peft(folder, adapters):
    """peft's model with these adapters; and its parameters by our names."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=list(LORA.targets))
    model = get_peft_model(base, config)
    parts = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    assert parts.keys() == adapters.keys()
    with torch.no_grad():
        for name, parameter in parts.items():
            parameter.copy_(adapters[name])
    return model, parts


def logprobs(model, sample):
    tokens = torch.tensor([*sample.prompt_tokens, *sample.rollout.tokens.tolist()])
    logits = model(tokens[None]).logits[0, len(sample.prompt_tokens) - 1 : -1] / sample.rollout.temperature
    return logits.log_softmax(-1).gather(1, tokens[len(sample.prompt_tokens) :, None])[:, 0]


@pytest.mark.distributed
def test_gradients_are_those_of_peft(tiny_qwen3, found):
    found = found["float32"]
    model, parts = of_peft(tiny_qwen3, found["adapters"])
    sum(-logprobs(model, sample).sum() for sample in samples()).backward()
    grads = {name.removeprefix("model.").replace(".default", ""): grad for name, grad in found["grads"].items()}
    assert grads.keys() == parts.keys(), "adapters alone have gradients"
    for name, parameter in parts.items():
        assert float((grads[name] - parameter.grad).norm() / parameter.grad.norm()) <= 1e-5, name


@pytest.mark.distributed
def test_merged_weights_are_those_of_peft(tiny_qwen3, found):
    merged = of_peft(tiny_qwen3, found["float32"]["adapters"])[0].merge_and_unload()
    expected = {name: parameter.detach() for name, parameter in merged.named_parameters()}
    assert found["float32"]["merged"].keys() == expected.keys()
    base = AutoModelForCausalLM.from_pretrained(tiny_qwen3, dtype=torch.float32)
    for name, value in expected.items():
        torch.testing.assert_close(found["float32"]["merged"][name], value, rtol=1e-6, atol=1e-7)
        assert torch.equal(value, base.get_parameter(name)) != any(f".{target}." in name for target in LORA.targets)
    assert {value.dtype for value in found["bfloat16"]["merged"].values()} == {torch.bfloat16}


@pytest.mark.distributed
def test_the_reference_is_the_model_without_adapters(tiny_qwen3, found):
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen3, dtype=torch.float32)
    for members, values in found["float32"]["reference"]:
        with torch.no_grad():
            expected = torch.cat([logprobs(model, samples()[member]) for member in members])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_alone_are_trained(found, dtype):
    found = found[dtype]
    b = sorted(name for name in found["first"] if "lora_B" in name)
    assert found["moved"] == b, "at first B is 0, so that A has no gradient"
    assert found["held"] == len(found["first"])
    assert found["frozen"]
    assert found["norms"][0] == pytest.approx(found["norms"][1], rel=1e-5)
    for name, held in found["dtypes"].items():
        assert held == ("torch.float32" if "lora_" in name else f"torch.{dtype}")


@pytest.mark.distributed
def test_first_values_are_those_of_peft_on_any_number_of_ranks(tiny_qwen3, found):
    first = found["float32"]["first"]
    for name, value in first.items():
        bound = value.shape[1] ** -0.5  # torch.nn.init.kaiming_uniform_(a=sqrt(5))
        if "lora_B" in name:
            assert not value.any()
        else:
            assert 0.9 * bound < float(value.abs().max()) <= bound
            assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.2)
    assert len({float(value[0, 0]) for name, value in first.items() if "lora_A" in name}) == len(first) / 2, "each has its own"
    assert float(first["model.layers.0.self_attn.q_proj.lora_A.weight"].double().sum()) == pytest.approx(0.0674096, abs=1e-6)
