"""The reward `reasoning_gym` against the package's own scorers, on the answers that the package gives for every task."""

import pytest

reasoning_gym = pytest.importorskip("reasoning_gym")

from reasoning_gym.factory import DATASETS  # noqa: E402

from polaris.config.reward import RewardConfig  # noqa: E402
from polaris.data.gym import rows_of  # noqa: E402
from polaris.data.reading import Reading  # noqa: E402
from polaris.data.sources import read_rows  # noqa: E402
from polaris.errors import Refused  # noqa: E402
from polaris.reward.gym_task import FOOLED, Task, dataset  # noqa: E402
from polaris.reward.protocol import RewardItem  # noqa: E402
from polaris.reward.rewards import Rewards, check_columns, checked_rewards  # noqa: E402

TASKS = sorted(DATASETS.keys() - {"composite", *FOOLED})
NO_EXAMPLE = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")
"""Tasks for whose entries the package gives no answer."""


@pytest.fixture(scope="module")
def rows():
    """One row of every task, made in a process of its own."""
    return {row["task"]: row for row in rows_of([Task(name=name, seed=5, size=1) for name in TASKS])}


@pytest.fixture(scope="module")
def rewards():
    with Rewards(RewardConfig(function="reasoning_gym", answer="<answer>", workers=2, timeout_s=5.0), require_thinking=False) as found:
        yield found


def item(row, answer):
    return RewardItem(response=f"So: <answer>{answer}</answer>", ground_truth=row["answer"] or (), row=row)


def test_the_packages_own_answer_is_right_for_every_task(rows, rewards):
    answered = [row for row in rows.values() if row["answer"] is not None]
    verdicts = rewards.score([item(row, row["answer"]) for row in answered])
    assert {row["task"] for row in answered} == set(TASKS) - set(NO_EXAMPLE)
    assert {row["task"]: verdict for row, verdict in zip(answered, verdicts, strict=True) if verdict.kind != "correct"} == {}
    assert all(verdict.reward == 1 for verdict in verdicts)


def test_a_wrong_answer_is_wrong_for_every_task_and_loses_no_response(rows, rewards):
    verdicts = dict(zip(rows, rewards.score([item(row, "wrong") for row in rows.values()]), strict=True))
    assert {task: verdict for task, verdict in verdicts.items() if verdict.kind != "wrong"} == {}
    assert verdicts["prime_factorization"].reason == "its scorer raised ValueError"


def test_partial_scores_are_the_packages(rewards):
    task = Task(name="chain_sum", seed=3, size=1)
    (row,) = rows_of([task])
    entry = dataset(task)[0]
    for text in ("5", "5 or 50", "0", "seven", f"about {entry['answer']}"):
        (verdict,) = rewards.score([item(row, text)])
        assert verdict.reward == dataset(task).score_answer(text, entry)
        assert verdict.kind == ("correct" if verdict.reward == 1 else "wrong")


def test_rows_of_a_composite_are_graded_each_by_its_own_scorer(rewards):
    """The right answer of one task is wrong for the other."""
    datasets = [{"name": "chain_sum", "weight": 3}, {"name": "word_sorting", "config": {"min_words": 4, "max_words": 4}}]
    made = [row for _, row in read_rows("reasoning_gym:composite", "train", Reading(options={"size": 4, "datasets": datasets}))]
    assert [row["task"] for row in made] == ["chain_sum"] * 3 + ["word_sorting"]
    answers = [row["answer"] for row in made]
    verdicts = rewards.score([item(row, answer) for row, answer in zip(made * 2, [*answers, *reversed(answers)], strict=True)])
    assert [(verdict.kind, verdict.reward) for verdict in verdicts[:4]] == [("correct", 1)] * 4
    assert [(verdicts[place].kind, verdicts[place].reward) for place in (4, 7)] == [("wrong", 0)] * 2


def test_what_counts_as_solved_can_be_lowered(rows):
    row = rows["chain_sum"]
    with Rewards(RewardConfig(function="reasoning_gym", success_above=0.2, workers=1), require_thinking=False) as found:
        verdicts = found.score(
            [RewardItem(response=f"\\boxed{{{text}}}", ground_truth="", row=row) for text in (f"= {row['answer']}", "x")]
        )
    assert [verdict.kind for verdict in verdicts] == ["correct", "wrong"]
    assert 0.2 < verdicts[0].reward < 1


def test_without_an_example_a_valid_answer_is_right(rows, rewards):
    (row,) = rows_of([Task(name="graph_color", seed=1, size=1, options={"min_num_vertices": 3, "max_num_vertices": 3, "num_colors": 3})])
    assert row["answer"] is None
    right, same = rewards.score([item(row, '{"0": 1, "1": 2, "2": 3}'), item(row, "{}")])
    assert (right.kind, same.kind) == ("correct", "wrong")


def test_an_answer_at_which_a_scorer_hangs_is_lost_alone(rows):
    with Rewards(RewardConfig(function="reasoning_gym", answer="<answer>", workers=1, timeout_s=2.0), require_thinking=False) as found:
        hung, after = found.score([item(rows["countdown"], "9**9**9**9"), item(rows["gcd"], rows["gcd"]["answer"])])
    assert (hung.kind, hung.reason, hung.lost) == ("ungradable", "timeout", True)
    assert after.kind == "correct"


def test_a_response_without_an_answer_has_none(rows, rewards):
    (verdict,) = rewards.score([RewardItem(response=str(rows["gcd"]["answer"]), ground_truth="", row=rows["gcd"])])
    assert verdict.kind == "no_answer"


def test_a_row_of_another_version_of_the_package_is_not_graded(rows, rewards):
    (verdict,) = rewards.score([item({**rows["gcd"], "question": "What is 2?"}, "1")])
    assert verdict.lost
    assert "which version of reasoning-gym" in verdict.trace


@pytest.mark.parametrize(("task", "answer"), FOOLED.items())
def test_scorers_that_take_one_answer_for_all_are_refused(task, answer):
    made = reasoning_gym.create_dataset(task, seed=7, size=8)
    assert all(made.score_answer(answer, made[index]) == 1 for index in range(8)), f"{task} is mended; it may leave the list"
    with pytest.raises(Refused, match="train on another task"):
        dataset(Task(name=task, seed=7, size=8))


def test_it_may_be_asked_what_counts_as_solved():
    checked_rewards(RewardConfig(function="reasoning_gym", success_above=0.5))


def test_rows_that_the_package_did_not_make_are_refused():
    found = checked_rewards(RewardConfig(function="reasoning_gym"))
    check_columns(found, [({"reasoning_gym": {}}, "reasoning_gym:gcd:1")])
    with pytest.raises(Refused, match=r"mine\.jsonl:1 is none"):
        check_columns(found, [({"question": "1 + 1?"}, "mine.jsonl:1")])
