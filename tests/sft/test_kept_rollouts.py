"""`polaris rollouts export`: kept rollouts as conversations, as `polaris sft` reads them."""

import json

import pytest
from tuning import write_config

from polaris.checkpoint.run_folder import Record
from polaris.commands.rollouts import run as export_rollouts
from polaris.config.load import QUICKSTART, load_config, load_job
from polaris.config.sft import SftConfig
from polaris.errors import Refused
from polaris.observe.kept import response_of
from polaris.observe.samples import RolloutRecorder, RolloutSample
from polaris.supervised.checks import examine
from polaris.supervised.dry_run import marked_text


class Options:
    correct, per_problem, output = True, None, None

    def __init__(self, folder, **values):
        self.run_folder = folder
        vars(self).update(values)


def sample(problem, response, verdict="correct", finish_reason="stop", before=()):
    messages = (*before, {"role": "user", "content": problem})
    return RolloutSample(
        prompt=f"<|user|>{problem}<|end|><|assistant|>", response=response, ground_truth="3", verdict=verdict, answer="3", reason="",
        reward=1.0, advantage=0.5, finish_reason=finish_reason, length=4, version=1, messages=messages,
    )  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "rl"
    RolloutRecorder(folder).write(1, [sample("1+2", "3"), sample("1+2", "old 3"), sample("2+1", "4", "wrong")])
    RolloutRecorder(folder).write(
        2, [sample("1+2", "3"), sample("1+2", "<think>x</think>3"), sample("2+1", "3 and", finish_reason="length")]
    )
    (folder / "config.json").write_text(Record(config=load_config(QUICKSTART)).to_json())
    return folder


def test_correct_responses_become_conversations_that_sft_trains_on(run_folder, tmp_path, capsys):
    export_rollouts(Options(run_folder, output=tmp_path / "kept.jsonl"))
    said = "3 of 6 kept rollouts (left out: 1 cut off, 1 not correct, 1 repeated)"
    assert said in capsys.readouterr().out
    checked = examine(load_job(SftConfig, write_config(tmp_path), [f"--data.path={tmp_path}/kept.jsonl", "--eval.fraction=none"]))
    assert [marked_text(one, checked) for one in checked.data.examples] == [
        f"<|user|>1+2<|end|><|assistant|>⟦{response}<|end|>⟧" for response in ("3", "<think>x</think>3", "old 3")
    ]


def test_a_cap_keeps_the_responses_of_the_last_steps(run_folder):
    export_rollouts(Options(run_folder, per_problem=1, correct=False))
    rows = [json.loads(line) for line in (run_folder / "rollouts.jsonl").read_text().splitlines()]
    assert [(row["step"], row["completion"][-1]["content"]) for row in rows] == [(2, "3"), (1, "4")]


def test_worked_examples_of_a_prompt_are_read_and_not_trained_on(run_folder, tmp_path):
    worked = ({"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"})
    RolloutRecorder(run_folder).write(3, [sample("2+2", "4", before=worked)])
    export_rollouts(Options(run_folder, per_problem=1, output=tmp_path / "kept.jsonl"))
    checked = examine(load_job(SftConfig, write_config(tmp_path), [f"--data.path={tmp_path}/kept.jsonl", "--eval.fraction=none"]))
    assert "<|user|>1+1<|end|><|assistant|>2<|end|><|user|>2+2<|end|><|assistant|>⟦4<|end|>⟧" in [
        marked_text(one, checked) for one in checked.data.examples
    ]


def test_thinking_that_the_template_has_opened_is_part_of_the_turn():
    assert response_of({"prompt": "<|im_start|>assistant\n<think>\n", "response": "so\n</think>\n4"}) == "<think>\nso\n</think>\n4"


def test_a_run_without_rollouts_is_refused(run_folder):
    for file in (run_folder / "rollouts").iterdir():
        file.unlink()
    with pytest.raises(Refused, match=r"set observe\.samples_per_step"):
        export_rollouts(Options(run_folder))
