"""What `[data]`, `model.chat_template` and `eval.fraction` make of the prompts that a run is checked with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polaris.config.load import load_config
from polaris.errors import Refused
from polaris.run.banner import configured
from polaris.run.checks import _content, check

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }} {% endfor %}"
LENGTH = "--reward.options={ length = { target = 20 } }"
pytestmark = pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model


def config(*overrides):
    return load_config(CONFIG, ["--rollout.engine=transformers", "--eval.path=none", "--eval.fraction=0.05", *overrides])


def test_template_and_system_prompt_reach_training_and_held_out_prompts():
    checked = check(config(f"--model.chat_template={TEMPLATE}", "--data.system_prompt=Add.", "--data.prompt_suffix=Now."))
    for prompts in (checked.prompts.prompts, checked.held_out.prompts):
        assert all(prompt.text.startswith("[system] Add. [user] Compute ") and prompt.text.endswith(" Now. ") for prompt in prompts)
        assert [message["role"] for message in prompts[0].messages] == ["system", "user"]
        assert checked.tokenizer.decode(prompts[0].tokens) == prompts[0].text
    facts = configured(checked, 1)
    assert facts["held out"] == f"{len(checked.held_out.prompts)} from the same (eval.fraction = 0.05)"


def test_a_part_is_held_out_of_training_and_another_template_makes_other_prompts():
    plain, other = check(config()), check(config(f"--model.chat_template={TEMPLATE}"))
    trained, held = ({prompt.id for prompt in one.prompts} for one in (plain.prompts, plain.held_out))
    assert trained.isdisjoint(held)
    assert len(trained | held) == 4096
    assert 150 < len(held) < 260
    assert {prompt.id for prompt in other.held_out.prompts} == held
    assert _content(plain)["prompts"]["digest"] != _content(other)["prompts"]["digest"], "a resumed run sees it"


def test_held_out_prompts_that_are_trained_on_are_counted(tmp_path):
    problems = [json.dumps({"problem": f"What is {number} + 1?", "answer": str(number + 1)}) + "\n" for number in range(8)]
    for name, rows in (("train", problems[:6]), ("test", problems[4:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    sets = f"--data.path={tmp_path}/train.jsonl", f"--eval.path={tmp_path}/test.jsonl", "--eval.fraction=none"
    found = configured(check(config("--trainer.prompts_per_step=4", *sets)), 1)["overlap"]
    assert found.startswith("2 of 4 held-out prompts are also trained on; name their set in data.decontaminate")
    assert "overlap" not in configured(
        check(config("--trainer.prompts_per_step=4", *sets, f'--data.decontaminate=["{tmp_path}/test.jsonl"]')), 1
    )


def test_bad_answers_of_a_configuration_are_refused_before_the_engine_is_built():
    given = config()
    with pytest.raises(Refused, match=r"data\.answer = '\(' is no regular expression"):
        check(replace(given, data=replace(given.data, answer="(")))
    with pytest.raises(Refused, match="the chat template refuses it"):
        check(config("--model.chat_template={% if %}"))


def test_sections_that_have_values_but_not_their_switch_are_said_to_be_left_out():
    found = configured(check(config("--difficulty.temperature=0.7", "--reward.process.marks=8")), 1)["left out"]
    assert found == "[difficulty], since it has no samples_per_prompt; [reward.process], since it has no most"
    assert "left out" not in configured(check(config("--difficulty.temperature=0.7", "--difficulty.samples_per_prompt=8")), 1)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), None),
        (("--reward.function=length", LENGTH), "length (1 is solved, 0 is not; for other numbers set reward.success_above)"),
        (("--reward.function=length", LENGTH, "--reward.success_above=-0.5"), "length (above -0.5 is solved)"),
    ],
)
def test_rewards_and_what_counts_as_solved_are_said_before_training(overrides, said):
    assert configured(check(config(*overrides)), 1).get("reward") == said


STAGES = """
[[stage]]
steps = 20
temperature = "probe"
[[stage]]
steps = 5
temperature = 1.2
max_response_tokens = 960
"""


def test_what_is_on_of_the_recipe_is_said_before_training(tmp_path):
    facts = configured(check(config("--trainer.steps=4", "--rollout.temperature=0.7", "--rollout.max_response_tokens=90")), 1)
    assert facts["stages"] == "4 steps at temperature 0.7, 90 tokens"
    assert not {"probe", "curriculum", "process reward"} & facts.keys()
    (tmp_path / "recipe.toml").write_text(CONFIG.read_text() + STAGES)
    on = ["--curriculum.target=[0.7, 0.3]", "--reward.process.most=0.5", "--rollout.max_response_tokens=90", "--probe.prompts=60"]
    checked = check(load_config(tmp_path / "recipe.toml", ["--rollout.engine=transformers", *on]))
    facts = configured(checked, 1)
    assert facts["stages"] == '20 steps at temperature "probe", 90 tokens; 5 steps at temperature 1.2, 960 tokens'
    assert facts["probe"] == "9 temperatures from 0.2 to 1.8, at most 8 responses to each of 60 prompts at each"
    assert facts["curriculum"] == "prompts with a pass rate near 0.7 more often, at the end near 0.3"
    assert facts["process reward"] == "a wrong response earns up to 0.5 for its intermediate results"
