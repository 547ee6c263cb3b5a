"""Values that are None because they were left out: in files, on the command line, and in records."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.load import changed_fields, dump_config, load_config, read_dumped
from polaris.config.recipe import CurationConfig, DifficultyConfig, StageConfig
from polaris.config.reward import RewardConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig

GIVEN = """
[model]
revision = "abc"
[eval]
path = "held_out.jsonl"
temperature = 0.5
[final]
temperature = 1.4
[[stage]]
temperature = "probe"
max_response_tokens = 64
"""
WRITTEN_BEFORE = {
    "model": {"revision": None},
    "reward": {"workers": 0, "require_thinking": False},
    "algorithm": {"dual_clip": 0.0, "rescue": 0},
    "trainer": {"cpu_threads": 0},
    "sync": {"base_tolerance": 0.0},
    "eval": {"path": "", "temperature": 0.0},
    "observe": {"wandb_project": ""},
    "rope": {"original_positions": 0, "attention_factor": 0.0, "max_positions": 0},
    "difficulty": {"column": "", "max_response_tokens": 0},
    "probe": {"prompts": 0},
    "final": {"samples_per_prompt": 0, "temperature": 0.0, "original_positions": 0, "attention_factor": 0.0, "max_positions": 0},
}
"""What older versions recorded where now a value is left out, or a word stands; `False`, `None` and 0 of other fields are themselves."""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def test_none_takes_back_what_the_file_gives(write):
    path = write(GIVEN)
    names = ("model.revision", "eval.path", "eval.temperature", "final.temperature", "stage.0.temperature", "stage.0.max_response_tokens")
    for word in ("none", "None"):
        config = load_config(path, [f"--{name}={word}" for name in names])
        assert config == RunConfig(stage=(StageConfig(),))
    assert load_config(path, []).stage == (StageConfig(temperature="probe", max_response_tokens=64),)
    assert load_config(path, ["--name=none", "--algorithm.correction=off"]).name == "none", "a text that must be there"


def test_what_is_left_out_is_null_in_the_record_and_none_when_it_is_read():
    config = RunConfig(stage=(StageConfig(), StageConfig(temperature=0.5)))
    recorded = json.loads(dump_config(config))
    assert recorded["eval"]["path"] is recorded["stage"][0]["temperature"] is recorded["rope"]["max_positions"] is None
    assert read_dumped(recorded, "config.json") == config
    assert changed_fields(replace(config, stage=(StageConfig(temperature=0.7),) * 2), dump_config(config)) == [
        "stage.0.temperature: None -> 0.7",
        "stage.1.temperature: 0.5 -> 0.7",
    ]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("", ["--final.temperature=0"], "final.temperature = 0.0 must be above 0; correct it, or leave it out, which takes the default"),
        ("[eval]\ntemperature = 0.0", [], "eval.temperature = 0.0 must be above 0; correct it, or leave it out"),
        ("", ["--algorithm.dual_clip=0"], 'algorithm.dual_clip = 0.0 must be above 1, or "off"'),
        ("", ["--probe.prompts=0"], 'set it to 60 or more, or to "all"'),
        ("", ["--eval.path="], "--eval.path is empty; write --eval.path=none"),
        ("[eval]\npath = ''", [], "eval.path is empty; leave it out"),
        ("", ["--reward.workers=many"], "--reward.workers = 'many' must be of type int, or left out"),
        ("[final]\ntemperature = 'none'", [], "final.temperature = 'none' must be of type float, or left out"),
        ("[final]\ntemperature = none", [], "leave the line out, which takes the default"),
        ("", ["--trainer.steps=none"], "--trainer.steps = 'none' must be of type int"),
    ],
)
def test_0_and_empty_texts_are_refused_with_what_to_write(write, text, overrides, message):
    with pytest.raises(ValueError) as error:
        load_config(write(text), overrides)
    assert message in str(error.value)


def test_words_in_the_place_of_numbers(write):
    config = load_config(write('[algorithm]\ndual_clip = "off"'), ["--probe.prompts=all"])
    assert (config.algorithm.dual_clip, config.probe.prompts) == ("off", "all")


def test_a_0_that_may_be_asked_for_stays_0_in_the_record():
    config = RunConfig(algorithm=AlgorithmConfig(correction_low=0.0), reward=RewardConfig(success_above=0.0))
    config = replace(config, difficulty=DifficultyConfig(samples_per_prompt=8), curation=CurationConfig(drop_up_to=0.0))
    assert read_dumped(json.loads(dump_config(config)), "config.json") == config


def test_a_record_of_an_older_version_reads_as_what_it_meant():
    config = RunConfig(stage=(StageConfig(), StageConfig(temperature="probe", eval_temperature=0.5)))
    recorded = json.loads(dump_config(config))
    for section, values in WRITTEN_BEFORE.items():
        recorded[section] |= values
    for stage in recorded["stage"]:
        stage |= {name: 0 for name, value in stage.items() if value is None}
    found = read_dumped(recorded, "config.json")
    assert found.algorithm == replace(config.algorithm, dual_clip="off")
    assert found.probe == replace(config.probe, prompts="all")
    assert found.reward == replace(config.reward, require_thinking=False)
    assert replace(found, algorithm=config.algorithm, probe=config.probe, reward=config.reward) == config


def test_the_longest_response_is_that_of_a_stage_or_of_the_difficulty_pass():
    config = RunConfig(rollout=RolloutConfig(max_response_tokens=100), stage=(StageConfig(max_response_tokens=40),))
    assert config.longest_response == 40
    assert replace(config, stage=(*config.stage, StageConfig())).longest_response == 100
    assert replace(config, difficulty=DifficultyConfig(max_response_tokens=60)).longest_response == 60
