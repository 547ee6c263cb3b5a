"""What a resumed run is refused for, because going on would compute something else."""

import re
from dataclasses import replace

import pytest
from scripted import for_training, on_ranks

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.config.recipe import DifficultyConfig, FinalConfig, StageConfig
from polaris.config.schema import RunConfig
from polaris.recipe.final import last_temperature
from polaris.recipe.run import prepare_prompts, run
from polaris.results import Result
from polaris.types import Prompt

PROMPTS = tuple(Prompt(id=name, text=name, tokens=(1, 2), ground_truth="2", source="x:1") for name in "abc")


def result_of(work, config):
    (result,), _ = on_ranks(config, lambda context: work(for_training(context, prompts=PROMPTS)))
    return result


def at(step):
    return TrainState(step=step, version=step, sampler={}, nonfinite_streak=0)


def test_the_prompts_that_were_chosen_stay_once_something_is_trained(tmp_path):
    """Whatever is changed with `--change`: chosen by another seed, an epoch would be another."""
    Result(tmp_path / "stages" / "curation.json").write({"dropped": {"b": "always solved"}})
    config = RunConfig(difficulty=DifficultyConfig(samples_per_prompt=4), seed=5)
    prepared = result_of(lambda context: prepare_prompts(context, RunFolder(tmp_path), at(4)), config)
    assert [prompt.id for prompt in prepared.source.prompts] == ["a", "c"]


def test_a_closing_that_is_gone_is_not_made_again_later(tmp_path):
    config = RunConfig(stage=(StageConfig(steps=3), StageConfig(steps=3)))
    refused = result_of(lambda context: run(context, RunFolder(tmp_path), at(4), None), config)
    assert isinstance(refused, ValueError)
    assert re.search(r"stage-1\.json is gone, and cannot be made again at step 4; restore it", str(refused))


def test_the_temperature_of_the_last_stage(tmp_path):
    config = RunConfig(stage=(StageConfig(temperature="probe"),), final=FinalConfig())
    with pytest.raises(ValueError, match=r"temperature-1\.json is gone.* final\.temperature"):
        last_temperature(config, tmp_path)
    Result(tmp_path / "temperature-1.json").write({"temperature": 0.85})
    assert last_temperature(config, tmp_path) == 0.85
    assert last_temperature(replace(config, stage=(StageConfig(temperature=0.4),)), tmp_path) == 0.4
    assert last_temperature(replace(config, stage=(StageConfig(),)), tmp_path) == config.rollout.temperature
