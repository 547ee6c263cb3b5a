"""What adapters are asked for, and what cannot be had: each refusal names its remedy."""

import sys

import pytest
from transformers import GPT2Config

from benchmarks.models.tiny import tiny_config, tiny_model
from polaris.config.load import load_config
from polaris.config.lora import LARGEST_RANK, LoraConfig
from polaris.errors import Refused
from polaris.model.adapters import check_peft, check_targets
from polaris.model.check import check_checkpoint
from polaris.model.load import build_model


def test_by_default_all_linear_layers_of_the_decoder_and_never_the_head(tiny_qwen3):
    model = build_model(tiny_qwen3)
    found = check_targets(model, LoraConfig(rank=1))
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.rpartition(".")[2] for name in found} == set(names)
    assert len(found) == 2 * len(names)
    two = check_targets(model, LoraConfig(rank=1, targets=("v_proj", "q_proj")))
    assert two == [f"model.layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in ("q_proj", "v_proj")]


@pytest.mark.parametrize("target", ["q_projj", "lm_head", "layers"])
def test_an_unknown_target_is_refused_with_those_there_are(tiny_qwen3, target):
    close = "did you mean 'q_proj'. There are" if target == "q_projj" else "there are"
    with pytest.raises(Refused, match=rf"model\.lora\.targets: '{target}' is no linear layer .*; {close} q_proj, k_proj, v_proj"):
        check_checkpoint(tiny_qwen3, lora=LoraConfig(rank=1, targets=(target,)))


def test_a_model_without_linear_layers_is_refused(tmp_path):
    tiny_model(tiny_config("gpt2")).save_pretrained(tmp_path)
    assert GPT2Config.from_pretrained(tmp_path).model_type == "gpt2"
    with pytest.raises(Refused, match=r"layers of GPT2LMHeadModel have no torch\.nn\.Linear .*model\.lora\.rank = 0"):
        check_checkpoint(tmp_path, lora=LoraConfig(rank=1))
    check_checkpoint(tmp_path, lora=LoraConfig())


def test_without_peft_its_extra_is_named(monkeypatch):
    check_peft()
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"model\.lora needs peft.*pip install 'polaris-rl\[lora\]'"):
        check_peft()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha = 8.0", "has settings but no rank.*set model.lora.rank, such as 16"),
        ('targets = ["q_proj"]', "has settings but no rank"),
        ('sync = "adapter"', "has settings but no rank"),
        ("rank = -1", r"model\.lora\.rank = -1 is below 0"),
        (f"rank = {LARGEST_RANK + 1}", rf"model\.lora\.rank = {LARGEST_RANK + 1} is above {LARGEST_RANK}"),
        ("rank = 8\nalpha = 0.0", r"model\.lora\.alpha = 0.0 must be above 0"),
        ("rank = 8\nalpha = inf", r"model\.lora\.alpha = inf must be finite"),
        ('rank = 8\nsync = "both"', "is not one of 'merged', 'adapter'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, text, message):
    (tmp_path / "my.toml").write_text(f"[model.lora]\n{text}\n")
    with pytest.raises(Refused, match=message):
        load_config(tmp_path / "my.toml")


def test_settings_of_a_run(tmp_path):
    (tmp_path / "my.toml").write_text("[model.lora]\nrank = 8\n")
    lora = load_config(tmp_path / "my.toml", ['--model.lora.targets=["q_proj"]', "--model.lora.sync=adapter"]).model.lora
    assert lora == LoraConfig(rank=8, alpha=32.0, targets=("q_proj",), sync="adapter")
    assert lora.served_apart
    assert not LoraConfig().served_apart
