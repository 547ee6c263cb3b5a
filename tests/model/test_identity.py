import json
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from polaris.config.model import RopeConfig
from polaris.config.schema import RunConfig
from polaris.model.identity import model_identity, model_settings


def write(folder, weight, config, template="hello"):
    folder.mkdir()
    save_file({"w": weight}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return model_identity(folder)


def test_one_trained_step_another_configuration_and_another_template_are_told_apart(tmp_path):
    weight = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))
    base = write(tmp_path / "base", weight, {"rope_theta": 1})
    assert write(tmp_path / "copy", weight.clone(), {"rope_theta": 1}) == base
    stepped = write(tmp_path / "stepped", weight * (1 + 1e-6), {"rope_theta": 1})
    assert {name for name in base if stepped[name] != base[name]} == {"weights"}
    longer = write(tmp_path / "longer", weight, {"rope_theta": 2})
    assert {name for name in base if longer[name] != base[name]} == {"config"}
    other = write(tmp_path / "other", weight, {"rope_theta": 1}, "goodbye")
    assert {name for name in base if other[name] != base[name]} == {"tokenizer"}


def test_what_a_result_depends_on_has_0_for_what_is_left_out_as_results_of_older_versions():
    left_out = {"factor": 1.0, "original_positions": 0, "attention_factor": 0.0, "max_positions": 0}
    assert json.dumps(model_settings(RunConfig())["rope"]) == json.dumps(left_out)
    rope = RopeConfig(factor=2.0, original_positions=64, attention_factor=1.0, max_positions=128)
    assert model_settings(RunConfig(rope=rope))["rope"] == asdict(rope)
