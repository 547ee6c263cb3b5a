"""Questions with options become prompts with letters."""

from collections import Counter

import pytest

from polaris.data.choices import LETTERS, with_letters
from polaris.data.evaluation_sets import read_evaluation_sets
from polaris.data.problems import read_problems
from polaris.data.sources import write_rows


def question(number, right="right", wrong=("wrong", "also wrong", "wrong too")):
    row = {"Question": f"Question {number}?", "Correct Answer": right}
    return row | {f"Incorrect Answer {place}": text for place, text in enumerate(wrong, start=1)}


def option(row, letter):
    return next(line.removeprefix(f"({letter}) ") for line in row["prompt"].splitlines() if line.startswith(f"({letter})"))


def test_the_letter_is_that_of_the_right_option_and_all_letters_come_about_as_often():
    rows = [with_letters(question(number)) for number in range(400)]
    assert all(option(row, row["answer"]) == "right" for row in rows)
    counts = Counter(row["answer"] for row in rows)
    assert set(counts) == set(LETTERS)
    assert max(counts.values()) < 140, counts  # 100 expected, standard deviation 9


def test_the_order_does_not_depend_on_which_column_an_option_stands_in():
    one = with_letters(question(1))
    other = with_letters(question(1, wrong=("wrong too", "wrong", "also wrong")))
    assert (one["prompt"], one["answer"]) == (other["prompt"], other["answer"])


@pytest.mark.parametrize("row", [{"problem": "1+1?", "answer": "2"}, {**question(1), "Incorrect Answer 2": None}])
def test_another_row_stays_as_it_is(row):
    assert with_letters(row) is row


def test_a_file_with_the_columns_of_gpqa_is_a_prompt_set_and_an_evaluation_set(tmp_path):
    path = str(tmp_path / "set.jsonl")
    write_rows(tmp_path / "set.jsonl", [question(number) | {"Record ID": f"rec{number}"} for number in range(3)])
    problems = read_problems(path, "train")
    assert [problem.id for problem in problems] == ["rec0", "rec1", "rec2"]
    assert all(problem.ground_truth in LETTERS for problem in problems)
    (held,) = read_evaluation_sets([path], "test")
    assert held.ids == ("rec0", "rec1", "rec2")
