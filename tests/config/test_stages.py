"""Lists of tables: `[[stage]]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from polaris.config.load import changed_fields, dump_config, load_config
from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig

TWO_STAGES = """
[rollout]
max_response_tokens = 100
[[stage]]
steps = 30
temperature = "probe"
[[stage]]
steps = 20
temperature = 1
max_response_tokens = 400
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TWO_STAGES)
    return path


def test_stages_are_read_in_their_order(file):
    config = load_config(file, [])
    assert config.stage == (StageConfig(steps=30, temperature="probe"), StageConfig(steps=20, temperature=1.0, max_response_tokens=400))
    assert (config.steps, config.longest_response) == (50, 400)


def test_a_run_without_stages_has_one_that_drops_nothing():
    config = RunConfig()
    assert config.stages == (StageConfig(steps=100, drop_above=1.0),)
    assert config.longest_response == config.rollout.max_response_tokens


def test_stages_are_overridden_by_number(file):
    config = load_config(file, ["--stage.0.steps=3", "--stage.1.temperature=probe", "--stage.0.temperature", "0.8"])
    assert [(stage.steps, stage.temperature) for stage in config.stages] == [(3, 0.8), (20, "probe")]
    assert changed_fields(config, dump_config(config)) == []
    assert "stage.0.steps: 30 -> 3" in changed_fields(config, dump_config(load_config(file, [])))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--stage.2.steps=3", "there is no table 2; the file has 2, counted from 0"),
        ("--stage.steps=3", r"write --stage\.0\.steps=value for the first"),
        ("--stage.0.temperature=warm", "must be of type float or 'probe'"),
        ("--stage.0.stepz=3", "did you mean 'steps'"),
        ("--stage.0.steps=0", r"stage\.steps = 0 is below 1"),
        ("--stage=3", r"write each as \[\[stage\]\]"),
        ("--stage.0.steps.x=3", "holds no fields"),
    ],
)
def test_what_is_wrong_is_said(file, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(file, [override])
