"""`reasoning_gym:TASK` as a prompt set: options, levels, seeds, and what is refused."""

import sys

import pytest

pytest.importorskip("reasoning_gym")

from polaris.config.load import load_config
from polaris.data.gym import rows_of
from polaris.data.reading import Reading, training_sources
from polaris.data.sources import read_rows
from polaris.errors import Refused
from polaris.reward.gym_task import Task, level_count, tasks


def rows(task, **options):
    return [row for _, row in read_rows(f"reasoning_gym:{task}", "train", Reading(options=options))]


def test_each_level_has_an_equal_part_of_the_rows():
    found = rows("chain_sum", size=8, seed=1, levels=[0, 1, 3])
    assert [row["level"] for row in found] == [0, 0, 0, 1, 1, 1, 3, 3]
    assert len({row["id"] for row in found}) == 8
    assert [row["id"] for row in found][2:4] == ["chain_sum-seed1-level0-2", "chain_sum-seed1-level1-0"]
    terms = [row["question"].count(" + ") + row["question"].count(" - ") + 1 for row in found]
    assert max(terms[:3]) == 2 < max(terms[6:])


def test_options_are_the_tasks_own_fields():
    found = rows("word_sorting", size=6, seed=2, min_words=2, max_words=2, transformation="uppercase")
    assert all(len(row["answer"].split(", ")) == 2 and row["answer"].isupper() for row in found)
    assert all(row["level"] is None for row in found)
    found = rows("basic_arithmetic", size=5, operators=["*"], min_terms=2, max_terms=2)
    assert all("*" in row["question"] and "/" not in row["question"] for row in found)


def test_worked_examples_are_turns_and_the_same_for_all_rows_and_seeds():
    one, two = (rows("gcd", size=4, seed=seed, examples=2) for seed in (0, 1))
    chats = [[turn["content"] for turn in row["prompt"]] for row in (*one, *two)]
    assert all(chat[:4] == chats[0][:4] and len(chat) == 5 for chat in chats)
    assert chats[0][1] != chats[0][3]
    assert [chat[4] for chat in chats] == [row["question"] for row in (*one, *two)]
    assert "prompt" not in rows("gcd", size=1)[0]
    with pytest.raises(Refused, match="no answers of its own"):
        rows("graph_color", size=1, examples=1)


def test_another_seed_has_other_rows():
    # The package's own seeds 1 and 2 share all entries but one.
    one, two = ({row["question"] for row in rows("gcd", size=50, seed=seed)} for seed in (1, 2))
    assert not one & two
    assert one == {row["question"] for row in rows("gcd", size=50, seed=1)}


def test_rows_do_not_depend_on_the_hash_seed(monkeypatch):
    walk_over_sets = ["isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"]
    made = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        made.append(list(rows_of([Task(name=name, seed=3, size=4) for name in walk_over_sets])))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("gcdd", {}, "did you mean 'gcd'"),
        ("composite", {}, r"one table of \[\[data.sets\]\]"),
        ("gcd", {"min_number": 2}, "data.options.min_number is unknown to reasoning_gym:gcd; did you mean 'min_numbers'"),
        ("gcd", {"min_numbers": 5, "max_numbers": 2}, "max_numbers must be >= min_numbers"),
        ("gcd", {"size": 0}, "data.options.size = 0 must be a whole number from 1"),
        ("gcd", {"levels": [9]}, "has the levels 0 to 3, and not 9"),
        ("gcd", {"levels": [0], "max_value": 5}, "data.options.max_value is set by data.options.levels too"),
        ("gcd", {"levels": "0"}, "must be a list of numbers"),
        ("gcd", {"levels": [0, 0]}, "different levels"),
        ("gsm_symbolic", {"levels": [0]}, "has no curriculum"),
        ("word_sorting", {"transformation": "upper"}, "is none of 'lowercase', 'uppercase'"),
    ],
)
def test_what_a_task_does_not_take_is_refused_with_the_remedy(task, options, said):
    with pytest.raises(Refused, match=said):
        tasks(task, options, "data.options")


def test_without_the_package_the_remedy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(Refused, match=r'pip install "polaris-rl\[gym\]"'):
        tasks("gcd", {}, "data.options")


def test_levels_are_those_of_the_attribute_with_the_most():
    assert (level_count("gcd"), level_count("chain_sum"), level_count("gsm_symbolic")) == (4, 11, 0)


def test_a_configuration_names_tasks_their_options_and_their_reward(tmp_path):
    text = """
        reward = { function = "reasoning_gym" }
        [[data.sets]]
        path = "reasoning_gym:gcd"
        options = { size = 3, levels = [0, 1] }
        [[data.sets]]
        path = "reasoning_gym:lcm"
    """
    (tmp_path / "run.toml").write_text(text)
    first, second = training_sources(load_config(tmp_path / "run.toml", ["--data.sets.1.options.levels=[0]"]).data)
    assert (first.name, second.name, first.reading.options["levels"], second.reading.options["levels"]) == ("gcd", "lcm", [0, 1], [0])
    with pytest.raises(Refused, match=r'reward\.function = "reasoning_gym"'):
        load_config(tmp_path / "run.toml", ["--reward.function=math"])
