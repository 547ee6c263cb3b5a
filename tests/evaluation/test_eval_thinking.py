"""Whether an answer needs `</think>` is known when all samples are there; the verdicts are those of a setting that said so at once."""

import pytest

from polaris.config.reward import RewardConfig
from polaris.evaluation.contamination import accuracy_apart
from polaris.evaluation.markdown import announcement, score_lines
from polaris.evaluation.samples import Key, Sample
from polaris.evaluation.scoring import Scoring, decide_thinking, judged
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.suites import load_suites
from polaris.reward.thinking import Thinking

RESPONSES = [
    ("<think>hm</think>\\boxed{2}", "stop"),
    ("hm</think>\\boxed{3}", "stop"),
    ("\\boxed{2}", "stop"),
    ("<think>is it \\boxed{2}?", "length"),
    ("is it \\boxed{2}?", "length"),
    ("is it \\boxed{2}? it is", "length"),
    ("is it \\boxed{2}? hm", "length"),
]


@pytest.fixture
def score(tmp_path):
    (tmp_path / "set.jsonl").write_text('{"id": "p", "problem": "One and one?", "answer": "2"}\n', encoding="utf-8")
    suites = load_suites(EvalSettings(suite=(str(tmp_path / "set.jsonl"),), samples_per_prompt=len(RESPONSES)))

    def score(setting):
        with Scoring(RewardConfig(workers=1, require_thinking=setting), suites) as scoring:
            for number, (response, reason) in enumerate(RESPONSES):
                scoring.submit(1.0, Sample(key=Key("set", "p", number), seed=0, response=response, tokens=5, finish_reason=reason))
            return scoring.collect()

    return score


@pytest.mark.parametrize("required", [False, True])
def test_verdicts_are_those_of_the_setting_that_auto_comes_to(score, required):
    thinking = Thinking(required=required, why="")
    assert [one.strict for one in judged(score("auto"), thinking)] == [one.strict for one in score(required)]


def test_responses_that_came_to_an_end_decide_unless_the_template_does(score):
    scored = score("auto")
    assert decide_thinking(scored, "auto", None) == Thinking(required=True, why="2 of 3 responses open thinking")
    assert decide_thinking(scored[3:], "auto", None) == Thinking(required=False, why="1 of 4 responses open thinking")
    template = Thinking(required=False, why="the chat template closes thinking")
    assert decide_thinking(scored, "auto", template) is template
    assert decide_thinking(scored, False, Thinking(required=True, why="")).required is False


def test_a_terminal_is_told_where_no_response_has_an_answer(tmp_path):
    number = {"mean": 0.0, "low": 0.0, "high": 0.0}
    found = {"samples": 1, "avg": number, "pass": {"1": number}, "maj": {"1": number}, "clipped": 0.25, "no_answer": 1.0}
    found |= {"no_answer_reasons": {"no \\boxed{}": 3, "cut off at the token limit": 1}}
    result = {"results": {"1": {"set": found}}, "thinking": {"required": False, "why": "0 of 3 responses open thinking"}}
    said = announcement(result, tmp_path)
    assert "no answer 100.0% (3 no \\boxed{}, 1 cut off at the token limit)" in said
    assert "an answer counts without </think>: 0 of 3 responses open thinking" in said
    assert "warning: no response has an answer" in said
    found["no_answer"] = 0.75
    assert "warning" not in announcement(result, tmp_path)


def test_a_terminal_is_told_the_score_without_problems_that_are_also_training_data():
    """Of problems solved in 4, 0 and 2 of 4 samples the first is known: 25 % without it."""
    number = {"mean": 0.5, "low": 0.1, "high": 0.9}
    found = {"samples": 4, "avg": number, "pass": {"4": number}, "maj": {"4": number}, "clipped": 0.0, "no_answer": 0.0}
    found |= {"no_answer_reasons": {}, "problems": 3, "correct": {"a": 4, "b": 0, "c": 2}}

    def said(known, **looked):
        result = {"results": {"1": {"set": found | {"overlap": accuracy_apart(found, known)}}}, "overlap": looked}
        return score_lines(result)[0].partition("clipped 0.0%")[2]

    assert said(["a"], against=["x"], unread=[]).startswith("; 1 of 3 problems also in the training data, avg@4 without them 25.0% [")
    assert said([], against=["x"], unread=["y"]) == "; at least 0 of 3 problems also in the training data"
    assert said(["a", "b", "c"], against=["x"], unread=[]) == "; 3 of 3 problems also in the training data"
    assert said([], against=[], unread=["y"]) == ""
    assert score_lines({"results": {"1": {"set": found}}})[0].endswith("clipped 0.0%"), "a result of an older version"
