"""Options, defaults and refusals of the command, without a model."""

import argparse
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from evaluations import run

from polaris.config.recipe import FinalConfig
from polaris.config.schema import RunConfig
from polaris.errors import Refused
from polaris.evaluation.options import _FIELDS, add_options, named_as_options, settings_of
from polaris.evaluation.settings import final_settings
from polaris.evaluation.suites import load_suites


def settings(*options):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return settings_of(parser.parse_args(["--model", "M", "--suite", "aime24,amc23", *options]))


def test_defaults_are_the_papers():
    found = settings()
    assert found.suite == ("aime24", "amc23")
    assert (found.temperature, found.top_k, found.max_response_tokens, found.samples_per_prompt) == (1.4, 20, 90_000, None)
    assert found.prompt_suffix == "Let's think step by step and output the final answer within \\boxed{}."
    assert found.rope_factors == (1.0,)
    assert found.buckets == (16_384, 32_768)
    assert settings("--max-tokens", "32768").buckets == ()
    assert settings("--max-tokens", "32769").buckets == (16_384, 32_768)
    assert settings("--max-tokens", "24", "--buckets", "8,16").buckets == (8, 16)
    assert found.reward.require_thinking == "auto"
    assert settings("--require-thinking").reward.require_thinking is True
    assert settings("--no-require-thinking").reward.require_thinking is False


def test_options_reach_the_settings():
    found = settings("--yarn", "1.0,1.5", "--buckets", "quartiles", "--chat-option", "enable_thinking=false", "--chat-option", "mode=a=b")
    assert found.rope_factors == (1.0, 1.5)
    assert found.buckets == ()
    assert found.chat_template_options == {"enable_thinking": False, "mode": "a=b"}
    made = settings("--set-option", "size=200", "--set-option", "levels=[0, 1]", "--set-option", "tasks=date", "--set-option", "hard=true")
    assert made.options == {"size": 200, "levels": [0, 1], "tasks": "date", "hard": True}
    composite = settings("--set-option", 'datasets=[{"name": "gcd", "weight": 2.5, "config": {"levels": [0]}}]').options
    assert composite == {"datasets": [{"name": "gcd", "weight": 2.5, "config": {"levels": [0]}}]}


def test_the_form_of_the_answer_binds_an_evaluation_and_folders_of_older_versions_have_the_default():
    assert settings().reward.answer == "boxed"
    assert "answer_form" not in settings().identity()
    found = settings("--answer-form", "<answer>")
    assert (found.reward.answer, found.identity()["answer_form"]) == ("<answer>", "<answer>")


def test_messages_of_loading_name_the_options():
    pytest.importorskip("reasoning_gym")
    said = r"^--prompt-suffix = .* and --answer-form = 'whole' looks .* give --prompt-suffix that of"
    with pytest.raises(Refused, match=said), named_as_options():
        load_suites(settings("--answer-form", "whole", "--samples", "1", "--suite", "reasoning_gym:gcd"))


def test_what_binds_an_evaluation_has_0_for_what_is_left_out_as_those_begun_by_older_versions():
    assert settings("--yarn", "1,1.5").identity()["yarn"] == {"1.5": {"original_positions": 0, "attention_factor": 0.0}}
    given = settings("--yarn", "1.5", "--original-positions", "64", "--attention-factor", "1").identity()["yarn"]
    assert given == {"1.5": {"original_positions": 64, "attention_factor": 1.0}}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--temperature", "0"), "temperature 0.0 must be above 0"),
        (("--yarn", "1,0.5"), "--yarn[1] = 0.5 is below 1"),
        (("--samples", "-1"), "--samples = -1 must be above 0"),
        (("--max-tokens", "0"), "--max-tokens = 0 is below 1"),
        (("--max-positions", "-1"), "--max-positions = -1 must be above 0"),
        (("--samples", "0"), "--samples = 0 must be above 0; correct it, or leave it out"),
        (("--max-positions", "0"), "--max-positions = 0 must be above 0"),
        (("--yarn", "2", "--original-positions", "0"), "--original-positions = 0 must be above 0"),
        (("--yarn", "2", "--attention-factor", "0"), "--attention-factor = 0.0 must be above 0"),
        (("--workers", "0"), "--workers = 0 must be above 0"),
        (("--concurrent", "0"), "--concurrent = 0 is below 1"),
        (("--timeout", "0"), "--timeout"),
        (("--gpu-memory", "2"), "--gpu-memory"),
        (("--server", "http://host/v1", "--server-patience", "0"), "--server-patience 0 must be above 0"),
        (("--server", "http://host/v1", "--max-positions", "9"), "--max-positions needs an engine"),
        (("--yarn", "1,1"), "(1.0, 1.0) must be named once each"),
        (("--yarn", "1,inf"), "must be finite"),
        (("--original-positions", "4096"), "--original-positions needs YaRN"),
        (("--attention-factor", "1.0"), "--attention-factor needs YaRN"),
        (("--buckets", "64,32"), "must rise"),
        (("--top-k", "0"), "top-k 0"),
        (("--server", "host:80"), "must begin with http"),
        (("--server", "http://host/v1", "--yarn", "1.5"), "a --server has its own rotary embedding"),
        (("--chat-option", "thinking"), "NAME=VALUE"),
        (("--answer-form", "whole", "--suite", "gpqa-diamond"), "--answer-form has no effect: sets of multiple choice"),
        (("--set-option", "size"), "--set-option size must be NAME=VALUE"),
        (("--set-option", "size=null"), "--set-option size=null must have a number"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError) as error:
        settings(*options)
    assert named in str(error.value)
    assert not re.search(r"\b(final|rollout|reward|rope|model)\.", str(error.value)), "a field of a configuration, which this has not"


def test_every_field_that_is_named_as_an_option_has_that_option():
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert set(_FIELDS.values()) <= options
    sections = RunConfig()
    for field in _FIELDS:
        section, name = field.split(".")
        assert field in ("final.seed", "server.concurrency") or hasattr(getattr(sections, section), name)


def test_messages_of_a_final_evaluation_name_its_fields(tmp_path):
    def final(**fields):
        return final_settings(RunConfig(final=replace(FinalConfig(suite=("aime24",)), **fields)), tmp_path, 1.0)

    for fields, named in (
        ({"top_k": 0}, "final.top_k 0 must be at least 1"),
        ({"rope_factors": (1.0, 1.0)}, "final.rope_factors (1.0, 1.0) must be named once each"),
    ):
        with pytest.raises(ValueError) as error:
            final(**fields)
        assert named in str(error.value)
        assert "--" not in str(error.value)
    (tmp_path / "own.jsonl").write_text('{"problem": "One?", "answer": "1"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"give final\.samples_per_prompt"):
        load_suites(final(suite=(str(tmp_path / "own.jsonl"),)))


def test_bad_input_is_one_line_and_status_2(tmp_path):
    (tmp_path / "set.jsonl").write_text('{"problem": "One?", "answer": "1"}\n', encoding="utf-8")
    for options, named in (
        (("--model", "embedded:model", "--suite", str(tmp_path / "none.jsonl")), "none.jsonl does not exist"),
        (("--model", str(tmp_path / "no-model"), "--suite", str(tmp_path / "set.jsonl"), "-n", "1"), "does not exist"),
        (("--model", "embedded:model", "--suite", str(tmp_path / "set.jsonl")), "give --samples"),
    ):
        said = run(tmp_path / "run", *options, status=2)
        assert named in said
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "identity.json").exists()


def test_help_is_light():
    command = [sys.executable, "-X", "importtime", "-m", "polaris.cli", "eval", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "aime24 and aime25 (32)" in " ".join(result.stdout.split())
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "polaris.commands.eval" in imported
    assert not imported & {"torch", "vllm", "transformers", "sympy", "pyarrow", "rich", "numpy"}


def test_the_final_evaluation_of_a_run_takes_its_room_and_never_a_higher_temperature_by_itself(tmp_path):
    config = RunConfig(final=FinalConfig(suite=("aime24",), max_response_tokens=4096, rope_factors=(1.0, 2.0)))
    found = final_settings(config, tmp_path, 1.1)
    assert (found.temperature, found.suite, found.rope_factors, found.buckets) == (1.1, ("aime24",), (1.0, 2.0), ())
    assert found.model.path == str(tmp_path)
    assert found.reward.require_thinking is config.reward.require_thinking
    assert final_settings(RunConfig(final=FinalConfig(suite=("a",), temperature=0.7)), tmp_path, 1.1).temperature == 0.7
