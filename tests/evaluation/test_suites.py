import json
from dataclasses import replace

import pytest

from polaris.config.data import DataConfig
from polaris.config.model import ModelConfig
from polaris.config.recipe import FinalConfig
from polaris.config.reward import RewardConfig
from polaris.config.schema import RunConfig
from polaris.data.named_sets import NAMED_SETS
from polaris.errors import Refused
from polaris.evaluation.samples import Key, Sample
from polaris.evaluation.scoring import Scoring
from polaris.evaluation.settings import EvalSettings, final_settings
from polaris.evaluation.suites import load_suites

SUFFIX = "Say it in a box."


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(suite):
    return [problem.text for problem in suite.problems]


def test_the_instruction_stands_at_the_end_once(tmp_path):
    rows = [
        {"problem": "One?", "answer": "1"},
        {"problem": f"Two? {SUFFIX}", "answer": "2"},
        {"problem": f"{SUFFIX} Three?", "answer": "3"},
    ]
    settings = EvalSettings(suite=(write(tmp_path / "a.jsonl", rows),), prompt_suffix=SUFFIX, samples_per_prompt=1)
    (suite,) = load_suites(settings)
    assert texts(suite) == [f"One? {SUFFIX}", f"Two? {SUFFIX}", f"{SUFFIX} Three? {SUFFIX}"]


def test_names_folders_and_files(tmp_path):
    rows = [{"problem": "One?", "answer": "1"}, {"problem": "None?", "answer": ""}]
    for name in ("aime24", "zebra"):
        write(tmp_path / f"{name}.jsonl", rows)
    named = EvalSettings(suite=("aime24",), data_folder=str(tmp_path))
    (suite,) = load_suites(named)
    assert (suite.name, suite.samples, len(suite.problems), len(suite.rejected)) == ("aime24", 32, 1, 1)
    folder = load_suites(EvalSettings(suite=(str(tmp_path),), samples_per_prompt=2))
    assert [(suite.name, suite.samples) for suite in folder] == [("aime24", 2), ("zebra", 2)]
    with pytest.raises(ValueError, match=r"final\.samples_per_prompt"):
        load_suites(EvalSettings(suite=(str(tmp_path / "zebra.jsonl"),)))
    with pytest.raises(ValueError, match="two evaluation sets have the name aime24"):
        load_suites(EvalSettings(suite=("aime24", str(tmp_path)), data_folder=str(tmp_path), samples_per_prompt=1))


def test_sets_of_the_users_are_read_by_columns_and_answer_and_the_papers_are_not(tmp_path):
    own = write(tmp_path / "own.jsonl", [{"q": "One?", "a": "It is #### 1"}])
    write(tmp_path / "aime24.jsonl", [{"problem": "Two?", "answer": "2"}])
    form = {"columns": {"prompt": "q", "answer": "a"}, "answer": "####", "system_prompt": "Think."}
    settings = EvalSettings(suite=(own, "aime24"), data_folder=str(tmp_path), samples_per_prompt=1, **form)
    assert [problem.ground_truth for suite in load_suites(settings) for problem in suite.problems] == ["1", "2"]
    assert {suite.problems[0].messages[0]["content"] for suite in load_suites(settings)} == {"Think."}
    config = RunConfig(data=DataConfig(**form), final=FinalConfig(suite=(own,)), model=ModelConfig(chat_template="{{ 1 }}"))
    found = final_settings(config, tmp_path, 1.0)
    assert {name: getattr(found, name) for name in form} == form
    assert found.model.chat_template == "{{ 1 }}"
    other = replace(config, final=FinalConfig(suite=(own,), columns={}, answer="whole"))
    assert (final_settings(other, tmp_path, 1.0).columns, final_settings(other, tmp_path, 1.0).answer) == ({}, "whole")


def test_the_digest_is_that_of_the_problems_not_of_the_file(tmp_path):
    rows = [{"problem": "One?", "answer": "1", "id": "x"}]
    (tmp_path / "list.json").write_text(json.dumps([{**rows[0], "level": 5}]), encoding="utf-8")
    paths = (
        write(tmp_path / "lines.jsonl", rows),
        str(tmp_path / "list.json"),
        write(tmp_path / "other.jsonl", [{**rows[0], "answer": "2"}]),
    )
    first, same, other = (suite.sha256 for suite in load_suites(EvalSettings(suite=paths, samples_per_prompt=1)))
    assert first == same != other


def test_the_papers_counts():
    assert {name: known.samples for name, known in list(NAMED_SETS.items())[:5]} == {
        "aime24": 32,
        "aime25": 32,
        "amc23": 8,
        "minerva": 4,
        "olympiad": 4,
    }


GPQA = {
    "Record ID": "rec1",
    "Question": "Which is even?",
    "Correct Answer": "4\n",
    **{f"Incorrect Answer {number}": str(number) * number for number in (1, 3)},
    "Incorrect Answer 2": "9",
}


@pytest.mark.parametrize("name", ["gpqa-diamond.jsonl", "with letters"])
def test_a_set_of_choices_is_graded_by_the_letter(tmp_path, name):
    """The same rows in GPQA's own columns, and as prompts that have letters already."""
    rows = [GPQA] if name.endswith("jsonl") else [{"id": "rec1", "prompt": "Which? (A) 4 (B) 5", "answer": "A"}]
    write(tmp_path / "gpqa-diamond.jsonl", rows)
    (suite,) = load_suites(EvalSettings(suite=("GPQA-Diamond",), data_folder=str(tmp_path)))
    (problem,) = suite.problems
    right, wrong = ("A", "B") if problem.ground_truth == "A" else (problem.ground_truth, "A")
    assert (suite.samples, problem.id) == (8, "rec1")
    with Scoring(RewardConfig(workers=1, require_thinking=False), [suite]) as scoring:
        responses = (f"\\boxed{{{right}}}", f"The answer is ({wrong}).", f"\\boxed{{\\text{{{right}}}}}", "none of them")
        for number, response in enumerate(responses):
            key = Key("gpqa-diamond", "rec1", number)
            scoring.submit(1.0, Sample(key=key, seed=0, response=response, tokens=5, finish_reason="stop"))
        assert scoring.drain(lambda: False)
        scored = scoring.collect()
    assert [one.strict.kind for one in scored] == ["correct", "wrong", "correct", "no_answer"]


def test_a_task_of_reasoning_gym_is_graded_by_its_own_scorer():
    """The target itself equals the expression that is asked for, and is no answer: the task's scorer gives it 0.01, our grader 1."""
    pytest.importorskip("reasoning_gym")
    settings = EvalSettings(suite=("reasoning_gym:countdown",), samples_per_prompt=1, options={"size": 1, "seed": 4})
    (suite,) = load_suites(settings)
    (problem,) = suite.problems
    expression = str(problem.ground_truth)
    with Scoring(RewardConfig(workers=1), [suite]) as scoring:
        for number, answer in enumerate((expression, f"({expression})", str(eval(expression)))):
            key = Key("countdown", problem.id, number)
            scoring.submit(1.0, Sample(key=key, seed=0, response=f"\\boxed{{{answer}}}", tokens=5, finish_reason="stop"))
        assert scoring.drain(lambda: False)
        scored = scoring.collect()
    assert [(one.strict.kind, one.strict.reward, one.recipe.reward) for one in scored] == [("correct", 1, 1)] * 2 + [("wrong", 0, 0)]


def graded(reward, suite, *responses):
    """The verdicts by our rules and by the recipe's on responses to the first problem of a set."""
    with Scoring(reward, [suite]) as scoring:
        for number, response in enumerate(responses):
            key = Key(suite.name, suite.problems[0].id, number)
            scoring.submit(1.0, Sample(key=key, seed=0, response=response, tokens=5, finish_reason="stop"))
        assert scoring.drain(lambda: False)
        return [(one.strict.kind, one.recipe.kind) for one in scoring.collect()]


@pytest.mark.parametrize(("form", "kinds"), [("boxed", "+.."), ("whole", "-+-"), ("<answer>", "..+"), ("is (.+)$", ".-.")])
def test_a_task_of_reasoning_gym_is_answered_where_the_form_says(form, kinds):
    """The responses are the answer in a box, the bare answer with another sign in front where it is `is`, and the answer in tags."""
    pytest.importorskip("reasoning_gym")
    settings = EvalSettings(suite=("reasoning_gym:gcd",), samples_per_prompt=1, options={"size": 1}, prompt_suffix="")
    (suite,) = load_suites(settings)
    answer = str(suite.problems[0].ground_truth)
    bare = f"It is {answer}0" if form.startswith("is") else answer
    words = {"+": "correct", "-": "wrong", ".": "no_answer"}
    found = graded(RewardConfig(workers=1, answer=form), suite, f"\\boxed{{{answer}}}", bare, f"<answer>{answer}</answer>")
    assert found == [(words[kind], words[kind]) for kind in kinds]


@pytest.mark.parametrize(("form", "kinds"), [("####", "..+-"), ("= (.+)$", ".+..")])
def test_a_set_of_mathematics_is_answered_where_the_form_says_and_the_recipes_grader_reads_boxes(tmp_path, form, kinds):
    (suite,) = load_suites(
        EvalSettings(suite=(write(tmp_path / "a.jsonl", [{"problem": "Half?", "answer": "1/2"}]),), samples_per_prompt=1, prompt_suffix="")
    )
    responses = ("\\boxed{0.5}", "x = 0.5", "#### 0.5", "#### 2")
    words = {"+": "correct", "-": "wrong", ".": "no_answer"}
    found = graded(RewardConfig(workers=1, answer=form), suite, *responses)
    assert [strict for strict, _ in found] == [words[kind] for kind in kinds]
    assert [recipe for _, recipe in found] == ["correct", "no_answer", "no_answer", "no_answer"]


def test_a_final_evaluation_grades_tasks_as_the_run_was_trained(tmp_path):
    """`chain_sum` gives a part of 1 to an answer with words around it."""
    pytest.importorskip("reasoning_gym")
    final = FinalConfig(suite=("reasoning_gym:chain_sum",), samples_per_prompt=1, options={"size": 1}, prompt_suffix="")
    length = {"reward": {"reasoning_gym": 1.0, "length": 0.1}, "options": {"length": {"buffer": 8}}}
    reward = RewardConfig(function=length["reward"], options=length["options"], answer="whole", success_above=0.2, workers=1)
    settings = final_settings(RunConfig(reward=reward, final=final), tmp_path, 1.0)
    (suite,) = load_suites(settings)
    answer = suite.problems[0].ground_truth
    assert graded(settings.reward, suite, f"= {answer}", "none") == [("correct", "correct"), ("wrong", "wrong")]
    assert {"answer_form": "whole", "success_above": 0.2}.items() <= settings.identity().items()
    other = final_settings(RunConfig(reward=replace(reward, function={"length": 1.0}), final=final), tmp_path, 1.0)
    assert other.reward.success_above is None, "it is of the numbers of another reward"
    assert graded(other.reward, suite, f"= {answer}", f"{answer}") == [("wrong", "wrong"), ("correct", "correct")]


def test_prompts_that_ask_for_a_box_and_answers_that_are_looked_for_elsewhere_are_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"problem": "One?", "answer": "1"}])
    settings = EvalSettings(suite=(path,), samples_per_prompt=1, reward=RewardConfig(answer="whole"))
    with pytest.raises(Refused, match=r"final\.prompt_suffix = .* asks for a box, and reward\.answer = 'whole' looks"):
        load_suites(settings)
    load_suites(replace(settings, prompt_suffix="Say the number alone."))
    load_suites(replace(settings, reward=RewardConfig(answer=r"\\boxed\{(\d+)\}")))
    with pytest.raises(Refused, match=r"reward\.answer = '\(' is no regular expression"):
        load_suites(replace(settings, reward=RewardConfig(answer="(")))


def test_a_task_without_answers_of_its_own_can_be_evaluated():
    pytest.importorskip("reasoning_gym")
    (suite,) = load_suites(EvalSettings(suite=("reasoning_gym:rush_hour",), samples_per_prompt=1, options={"size": 2}))
    assert len(suite.problems) == 2


def test_options_without_a_set_that_takes_them_are_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"problem": "One?", "answer": "1"}])
    with pytest.raises(Refused, match=r"final\.options are arguments of a function or of a task"):
        load_suites(EvalSettings(suite=(path,), samples_per_prompt=1, options={"size": 2}))
