"""First responses that have no answer end a run before anything is trained, and say what helps."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import programs
import pytest
from groups import batch

from polaris.config.reward import RewardConfig
from polaris.config.schema import RunConfig
from polaris.embedded import resolve
from polaris.sampling.guards import NoAnswers, stop_without_answers
from polaris.types import Group, Verdict

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
SUFFIX = 'set data.prompt_suffix = "'


def said(tmp_path, text, *reasons, cut=0):
    """The error of a step whose responses have no answer for `reasons`, the first `cut` of them cut off; "" where it goes on."""
    config = RunConfig(root=str(tmp_path), name="run", reward=RewardConfig(require_thinking=True))
    [group] = batch(a="0" * len(reasons))
    verdicts = [Verdict("no_answer", reason) if reason else Verdict("wrong", "", "2") for reason in reasons]
    rollouts = tuple(
        replace(scored, verdict=verdict, rollout=replace(scored.rollout, finish_reason="length" if place < cut else "stop"))
        for place, (scored, verdict) in enumerate(zip(group.rollouts, verdicts, strict=True))
    )
    context = SimpleNamespace(config=config, world=SimpleNamespace(is_main=True))
    try:
        stop_without_answers(context, [Group(prompt=replace(group.prompt, text=text), rollouts=rollouts)], "step 1", 512)
    except NoAnswers as error:
        return str(error)
    return ""


def test_one_answer_is_enough_to_go_on(tmp_path):
    assert said(tmp_path, "1 + 1?", "no \\boxed{}", None, "no \\boxed{}") == ""
    assert not (tmp_path / "run").exists()


def test_prompts_that_ask_for_another_form_are_told_to_ask_for_a_box(tmp_path):
    error = said(tmp_path, "End with Answer: N", "no \\boxed{}", "no \\boxed{}", "no \\boxed{}", cut=1)
    assert error.startswith("step 1: none of the 3 responses has an answer (2 no \\boxed{}, 1 cut off at the token limit)")
    assert 'the prompts ask for: "Answer:" 1' in error
    assert SUFFIX in error
    assert "more than 512 tokens" in error
    assert "require_thinking" not in error
    rows = [json.loads(line) for line in (tmp_path / "run" / "no_answers.jsonl").read_text().splitlines()]
    assert [row["finish_reason"] for row in rows] == ["length", "stop", "stop"]
    assert {row["prompt"] for row in rows} == {"End with Answer: N"}


@pytest.mark.parametrize(
    ("reason", "cut", "remedy"),
    [
        ("no </think>", 0, "set reward.require_thinking = false"),
        ("no </think>", 2, "more than 512 tokens"),
        ("unfinished thinking", 0, "data.chat_template_options = { enable_thinking = false }"),
        ("no \\boxed{}", 0, "write a worked example"),
        ("empty \\boxed{}", 0, "write a worked example"),
    ],
)
def test_each_reason_has_its_remedy(tmp_path, reason, cut, remedy):
    error = said(tmp_path, "Put it in \\boxed{}", reason, reason, cut=cut)
    assert remedy in error
    assert ("require_thinking" in error) == (reason == "no </think>" and not cut)


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_run_stops_in_step_1_with_nothing_trained(tmp_path):
    """The real command: prompts of the embedded model's task that ask for another form, and responses of two tokens."""
    problems = tmp_path / "set.jsonl"
    rows = [json.loads(line) for line in Path(resolve("embedded:train")).read_text().splitlines()[:8]]
    problems.write_text("".join(json.dumps(row | {"problem": f"{row['problem']} Answer:"}) + "\n" for row in rows))
    command = ["-m", "polaris.train", CONFIG, f"--data.path={problems}", f"--eval.path={problems}", f"--root={tmp_path}", "--name=run"]
    command += [
        "--rollout.max_response_tokens=2",
        "--rollout.engine=transformers",
        "--trainer.prompts_per_step=8",
        "--trainer.cpu_threads=1",
    ]
    process = programs.run(*command)
    assert process.returncode == 1, process.stderr
    assert "step 1: none of the 64 responses has an answer (64 cut off at the token limit)" in process.stderr
    assert "Traceback" not in process.stderr
    assert "To mend it: allow more than 2 tokens (rollout.max_response_tokens, or the stage's); set data.prompt_suffix = " in process.stderr
    assert 'asked for in "Answer:" 8; only boxes are graded: set data.prompt_suffix = "' in process.stdout
    assert "warning: step 0: held out: 100.0% of the responses have no answer" in process.stdout
    run = tmp_path / "run"
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [0]
    assert len((run / "no_answers.jsonl").read_text().splitlines()) == 16
    assert not list(run.glob("checkpoints/*"))
