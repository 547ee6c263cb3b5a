"""`reasoning_gym:TASK` as a prompt set: options, levels, seeds, and what is refused."""

import json
import sys

import pytest

pytest.importorskip("reasoning_gym")

from polaris.config.load import changed_fields, dump_config, load_config, read_dumped
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
    made = [row["question"] for row in rows_of([Task(name="gcd", seed=seed, size=50) for seed in (1, 2)])]
    assert not set(made[:50]) & set(made[50:])
    assert made[:50] == [row["question"] for row in rows("gcd", size=50, seed=1)]


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


def entries(*names, **first):
    return [{"name": name, **(first if number == 0 else {})} for number, name in enumerate(names)]


def test_a_composite_has_the_rows_of_its_tasks_by_weight():
    """Quotas of 10 rows by 2 : 1 : 1 are 5, 2.5 and 2.5: the remainder goes to the first of equal ones."""
    datasets = [
        {"name": "gcd", "weight": 2.0, "config": {"min_numbers": 3, "max_numbers": 3}},
        {"name": "chain_sum", "weight": 1, "config": {"levels": [0, 3]}},
        {"name": "word_sorting"},
    ]
    found = rows("composite", size=10, seed=3, datasets=datasets)
    asked = [(row["task"], row["level"]) for row in found]
    assert asked == [*[("gcd", None)] * 5, *[("chain_sum", 0)] * 2, ("chain_sum", 3), *[("word_sorting", None)] * 2]
    alone = {"gcd": {"size": 5, "seed": 3, "min_numbers": 3, "max_numbers": 3}, "chain_sum": {"size": 3, "seed": 3, "levels": [0, 3]}}
    assert found[:8] == list(rows_of([task for name, options in alone.items() for task in tasks(name, options, "data.options")]))
    assert len({row["id"] for row in found}) == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs data.options.datasets, a list with a table for each task"),
        ({"datasets": []}, "needs data.options.datasets"),
        ({"datasets": ["gcd"]}, r"data.options.datasets\[0\] = 'gcd' is no table"),
        ({"datasets": [{"weight": 1.0}]}, r"datasets\[0\].name = None must be the name of a task"),
        ({"datasets": entries("gcd", "lcm", "gcd")}, r"datasets\[2\].name = 'gcd' is there twice"),
        ({"datasets": entries("gcdd")}, "did you mean 'gcd'"),
        ({"datasets": entries("coin_flip")}, "train on another task"),
        ({"datasets": entries("composite")}, "cannot be part of another composite"),
        ({"datasets": entries("gcd", weight=0)}, r"datasets\[0\].weight = 0 must be a finite number above 0"),
        ({"datasets": entries("gcd", weight=float("inf"))}, r"datasets\[0\].weight = inf must be a finite"),
        ({"datasets": entries("gcd", weight=float("nan"))}, r"datasets\[0\].weight = nan must be a finite"),
        ({"datasets": entries("gcd", weight=True)}, r"datasets\[0\].weight = True must be a finite"),
        ({"datasets": entries("gcd", "lcm", weight=9), "size": 4}, r"datasets\[1\].weight = 1 leaves lcm none of data.options.size = 4"),
        ({"datasets": entries("gcd", wieght=2)}, r"datasets\[0\].wieght is unknown; did you mean 'weight'"),
        ({"datasets": entries("gcd", levels=[0])}, r"if it is an option of the task, write data.options.datasets\[0\].config.levels"),
        ({"datasets": entries("gcd", config=3)}, r"datasets\[0\].config = 3 must be a table"),
        ({"datasets": entries("gcd", config={"seed": 3})}, r"datasets\[0\].config.seed is an option of the whole set"),
        ({"datasets": entries("gcd", config={"foo": 3})}, r"data.options.datasets\[0\].config.foo is unknown to reasoning_gym:gcd"),
        (
            {"datasets": entries("gcd", config={"levels": [9]})},
            r"datasets\[0\].config.levels: .* the levels 0 to 3, and not 9",
        ),
        ({"datasets": entries("gcd", "lcm", config={"levels": [0, 1]}), "size": 2}, "one row or more for each, of 1;"),
        ({"datasets": entries("gcd"), "levels": [0]}, r"as in data.options.datasets\[0\].config.levels"),
        ({"datasets": entries("gcd"), "examples": 2}, "worked examples are those of one task"),
    ],
)
def test_what_a_composite_does_not_take_is_refused_with_the_remedy(options, said):
    with pytest.raises(Refused, match=said):
        rows("composite", **options)


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


COMPOSITE = """
    reward = { function = "reasoning_gym" }
    [data]
    path = "reasoning_gym:composite"
    [data.options]
    size = 9
    [[data.options.datasets]]
    name = "gcd"
    weight = 2.0
    config = { levels = [0, 1] }
    [[data.options.datasets]]
    name = "lcm"
"""


def test_a_file_names_the_tasks_of_a_composite_and_a_command_line_changes_them(tmp_path):
    (tmp_path / "run.toml").write_text(COMPOSITE)
    first = load_config(tmp_path / "run.toml")
    assert first.data.options["datasets"] == [{"name": "gcd", "weight": 2.0, "config": {"levels": [0, 1]}}, {"name": "lcm"}]
    assert read_dumped(json.loads(dump_config(first)), "config.json") == first
    changes = ["--data.options.datasets.1.weight=3", "--data.options.datasets.1.config.levels=[2]"]
    second = load_config(tmp_path / "run.toml", changes)
    assert second.data.options["datasets"][1] == {"name": "lcm", "weight": 3, "config": {"levels": [2]}}
    assert [type(value) for value in second.data.options["datasets"][1].values()] == [str, int, dict]
    assert changed_fields(second, dump_config(first)) == [
        "data.options.datasets.1.config.levels: None -> [2]",
        "data.options.datasets.1.weight: None -> 3",
    ]
    whole = load_config(tmp_path / "run.toml", ['--data.options.datasets=[{ name = "lcm" }]'])
    assert whole.data.options["datasets"] == [{"name": "lcm"}]


def test_a_held_out_task_with_the_problems_of_a_composite_is_refused(tmp_path):
    (tmp_path / "run.toml").write_text(COMPOSITE)
    held_out = ["--eval.path=reasoning_gym:gcd", "--eval.options.levels=[0, 1]"]
    with pytest.raises(Refused, match=r"have the same problems of reasoning_gym:gcd; give eval\.options another seed"):
        load_config(tmp_path / "run.toml", held_out)
    load_config(tmp_path / "run.toml", [*held_out, "--eval.options.seed=1"])
    same = ["--eval.path=reasoning_gym:composite", '--eval.options.datasets=[{ name = "lcm", weight = 7 }]']
    with pytest.raises(Refused, match="have the same problems of reasoning_gym:lcm"):
        load_config(tmp_path / "run.toml", same)
    with pytest.raises(Refused, match=r"eval.options.datasets\[0\].name = None"):
        load_config(tmp_path / "run.toml", [same[0], "--eval.options.datasets=[{ weight = 1 }]"])
