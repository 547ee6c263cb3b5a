"""What is wrong with a model is said before an engine starts; here none ever does."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from polaris.commands.eval import named_as_options
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.embedded import resolve
from polaris.evaluation.engine_source import EngineSource
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.suites import load_suites

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first call builds the embedded model


@pytest.fixture
def model(tmp_path):
    """A copy of the embedded model with 512 positions."""
    folder = tmp_path / "model"
    shutil.copytree(resolve("embedded:model"), folder)
    rewrite(folder / "config.json", max_position_embeddings=512)
    return folder


def rewrite(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def source(model, tmp_path):
    """The source of one short problem, by the settings; the weights' file is `model.safetensors`."""
    (tmp_path / "set.jsonl").write_text('{"id": "p", "problem": "1+1=", "answer": "2"}\n', encoding="utf-8")

    def of(tokens=100, engine="transformers", **settings):
        found = EvalSettings(
            suite=(str(tmp_path / "set.jsonl"),),
            samples_per_prompt=1,
            max_response_tokens=tokens,
            prompt_suffix="",
            model=ModelConfig(path=str(model), dtype="float32"),
            rollout=RolloutConfig(engine=engine),
            **settings,
        )
        return EngineSource(found, load_suites(found))

    return of


def test_more_tokens_than_positions_are_refused_as_in_training(source, model):
    assert "positions" not in source(400).describe()
    with pytest.raises(ValueError, match=r"\d+ \+ 1000 tokens exceed the 512 positions of .*model; set") as error:
        source(1000)
    prompt = int(str(error.value).split(" = ")[1].split(" + ")[0])
    assert f"final.max_response_tokens to {512 - prompt} or less" in str(error.value)
    assert f"final.max_positions to {1000 + prompt}" in str(error.value)
    source(512 - prompt)
    with pytest.raises(ValueError, match="512 positions"):
        source(512 - prompt + 1)
    with pytest.raises(ValueError, match=r"768 positions of .* with YaRN 1\.5"):
        source(1000, rope_factors=(1.5,))
    source(700, rope_factors=(1.5,))
    with pytest.raises(ValueError, match=r"512 positions of .*model; set"):
        source(700, rope_factors=(1.5, 1.0))


def test_the_command_names_its_own_options(source):
    with pytest.raises(ValueError) as error, named_as_options():
        source(1000)
    for option in ("--max-tokens to", "--yarn to", "--max-positions to"):
        assert option in str(error.value)
    assert "final." not in str(error.value)


def test_beyond_its_positions_a_model_extrapolates_where_that_is_asked_for(source):
    facts = source(1000, max_positions=2000, rope_factors=(1.0, 1.5)).describe()
    assert "beyond 512 the model extrapolates" in facts["positions"]
    assert "beyond 768 the model extrapolates" in facts["positions, YaRN 1.5"]
    with pytest.raises(ValueError, match="exceed the 900 positions"):
        source(1000, max_positions=900)


def test_weights_that_are_missing_damaged_or_of_another_shape_are_named(source, model):
    [path] = model.glob("*.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("mlp.down_proj.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks 1 of \d+ weights, such as {name}"):
        source()
    save_file(weights | {name: weights[name][:, :-1].contiguous()}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{name} has shape"):
        source()
    Path(path).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        source()


def test_a_rope_that_yarn_cannot_extend_is_said_of_the_evaluations_factors(source, model):
    config = json.loads((model / "config.json").read_text())
    own = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 1e4)}
    scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rewrite(model / "config.json", rope_parameters=own | scaled | {"original_max_position_embeddings": 64})
    with pytest.raises(ValueError, match=r"final\.rope_factors: .* already scales its rope by llama3"):
        source(rope_factors=(1.5,))


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_a_model_that_only_training_refuses_is_left_to_vllm(source, model):
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    rewrite(model / "config.json", layer_types=["linear_attention"] * layers)
    assert source(engine="vllm").describe()["engine"] == "vllm"
    weights = load_file(model / "model.safetensors")
    save_file({name: weight for name, weight in weights.items() if "q_proj" not in name}, model / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks \d+ of \d+ weights, such as model\.layers\.0\.self_attn\.q_proj\.weight"):
        source(engine="vllm")
