"""What an evaluation of a run says of its training; folders only."""

import json
from dataclasses import replace

import pytest

from polaris.checkpoint.run_folder import RunFolder, record_config
from polaris.config.data import DataConfig
from polaris.config.model import ModelConfig
from polaris.config.recipe import FinalConfig, StageConfig
from polaris.config.reward import RewardConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.evaluation.settings import EvalSettings, final_settings
from polaris.evaluation.trained import graded_otherwise, trained_otherwise

TRAINED = RunConfig(
    data=DataConfig(prompt_suffix="In \\boxed{}.", chat_template_options={"enable_thinking": False}),
    rollout=RolloutConfig(max_response_tokens=24),
)
SAME = EvalSettings(
    suite=("x",),
    prompt_suffix="In \\boxed{}.",
    temperature=1.0,
    top_k=-1,
    max_response_tokens=24,
    chat_template_options={"enable_thinking": False},
)
OPTIONS = "--prompt-suffix 'In \\boxed{}.' --temperature 1 --top-k -1 --max-tokens 24 --dtype bfloat16 --chat-option enable_thinking=false"


def said(tmp_path, trained, asked, model=""):
    run = tmp_path / "runs" / "x"
    record_config(RunFolder(run), trained)
    (run / "export").mkdir(exist_ok=True)
    return trained_otherwise(replace(asked, model=ModelConfig(path=model or f"{run}@step-4")))


def test_the_settings_of_training_are_not_repeated(tmp_path):
    assert said(tmp_path, TRAINED, SAME) == ""
    assert said(tmp_path, TRAINED, EvalSettings(suite=("x",)), model="Qwen/Qwen3-4B") == ""


def test_the_dtype_of_the_run_is_named(tmp_path):
    assert "--dtype float32" in said(tmp_path, replace(TRAINED, model=replace(TRAINED.model, dtype="float32")), SAME)


@pytest.mark.parametrize(
    "other",
    [{"prompt_suffix": ""}, {"temperature": 1.4}, {"top_k": 20}, {"max_response_tokens": 25}, {"chat_template_options": {}}],
)
def test_whatever_differs_gives_the_options_that_do_not(tmp_path, other):
    assert said(tmp_path, TRAINED, replace(SAME, **other)) == OPTIONS


def test_a_system_prompt_is_named_where_one_of_the_two_has_it(tmp_path):
    trained = replace(TRAINED, data=replace(TRAINED.data, system_prompt="Be brief."))
    assert "--system-prompt 'Be brief.'" in said(tmp_path, trained, SAME)
    assert said(tmp_path, trained, replace(SAME, system_prompt="Be brief.")) == ""


def test_the_last_stage_counts(tmp_path):
    stages = (StageConfig(max_response_tokens=48), StageConfig(max_response_tokens=96, temperature=0.7))
    assert "--temperature 0.7 --top-k -1 --max-tokens 96" in said(tmp_path, replace(TRAINED, stage=stages), SAME)


@pytest.mark.parametrize("measured", ["probe", "track"])
def test_a_measured_temperature_is_that_of_the_last_step(tmp_path, measured):
    trained = replace(TRAINED, stage=(StageConfig(temperature=measured),))
    assert said(tmp_path, trained, replace(SAME, temperature=0.3)) == ""  # before the first step nobody knows it
    steps = [{"step": step, "rollout/temperature": temperature} for step, temperature in ((1, 1.0), (2, 1.15))]
    lines = "".join(json.dumps(record) + "\n" for record in (*steps, {"step": 2, "eval/accuracy": 0.5}))
    (tmp_path / "runs" / "x" / "metrics.jsonl").write_text(lines)
    assert "--temperature 1.15" in said(tmp_path, trained, replace(SAME, temperature=0.3))
    assert said(tmp_path, trained, replace(SAME, temperature=1.15)) == ""


@pytest.mark.parametrize(
    ("function", "named"),
    [("math", ""), ({"math": 1.0, "format": 0.2}, ""), ("mine:reward", "not mine:reward of the run"), ("exact", "not exact")],
)
def test_a_run_that_another_reward_solved_is_said_to_be_graded_otherwise(tmp_path, function, named):
    run = tmp_path / "runs" / "x"
    record_config(RunFolder(run), replace(TRAINED, reward=RewardConfig(function=function)))
    (run / "export").mkdir()
    found = graded_otherwise(replace(SAME, model=ModelConfig(path=f"{run}")))
    assert named in found
    assert bool(named) == bool(found)
    assert graded_otherwise(replace(SAME, model=ModelConfig(path="Qwen/Qwen3-4B"))) == ""


def test_the_tasks_of_reasoning_gym_are_graded_as_in_training(tmp_path):
    run = tmp_path / "runs" / "x"
    record_config(RunFolder(run), replace(TRAINED, reward=RewardConfig(function="reasoning_gym")))
    (run / "export").mkdir()
    asked = replace(SAME, model=ModelConfig(path=f"{run}"), suite=("reasoning_gym:gcd",))
    assert graded_otherwise(asked) == ""
    assert "not reasoning_gym of the run" in graded_otherwise(replace(asked, suite=("reasoning_gym:gcd", "aime24")))


def test_the_form_of_the_answer_is_named_among_the_options_and_graded_by_it_nothing_is_left_to_say(tmp_path):
    tasks = replace(TRAINED, reward=RewardConfig(function="reasoning_gym", answer="<answer>"))
    asked = replace(SAME, suite=("reasoning_gym:gcd",))
    assert said(tmp_path, tasks, asked).endswith("--dtype bfloat16 --answer-form '<answer>' --chat-option enable_thinking=false")
    same = replace(asked, reward=RewardConfig(answer="<answer>"), model=ModelConfig(path=f"{tmp_path / 'runs' / 'x'}"))
    assert trained_otherwise(same) == graded_otherwise(same) == ""
    found = graded_otherwise(replace(same, reward=RewardConfig(answer="whole")))
    assert found.startswith("reasoning_gym (only answers as 'whole', a full score is correct), not reward.answer = '<answer>' of the run")
    assert "--answer-form boxed" in said(tmp_path, TRAINED, replace(SAME, reward=RewardConfig(answer="whole")))
    assert said(tmp_path, replace(TRAINED, reward=RewardConfig(function="mine:reward", answer="####")), SAME) == ""


def test_a_final_evaluation_of_tasks_says_nothing_of_grading(tmp_path):
    run = tmp_path / "runs" / "x"
    reward = RewardConfig(function="reasoning_gym", answer="####", success_above=0.5)
    config = replace(TRAINED, reward=reward, final=FinalConfig(suite=("reasoning_gym:gcd",)))
    record_config(RunFolder(run), config)
    (run / "export" / "step-000004").mkdir(parents=True)
    assert graded_otherwise(final_settings(config, run / "export" / "step-000004", 1.0)) == ""


@pytest.mark.parametrize(("function", "suite"), [("math", "aime24"), ("reasoning_gym", "reasoning_gym:gcd")])
def test_a_form_of_the_answer_that_is_no_box_is_said_for_a_run_and_its_export(tmp_path, function, suite):
    run = tmp_path / "runs" / "x"
    record_config(RunFolder(run), replace(TRAINED, reward=RewardConfig(function=function, answer="####", success_above=0.5)))
    (run / "export" / "step-000004").mkdir(parents=True)
    for model in (run, run / "export" / "step-000004"):
        found = graded_otherwise(replace(SAME, suite=(suite,), model=ModelConfig(path=f"{model}")))
        assert found.startswith(f"{function} (only answers in boxes, a full score is correct), not reward.answer = '####' and reward.")
