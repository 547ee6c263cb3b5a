"""Rows as problems: columns that hold JSON as text, rows that repeat others, and where a row is said to be."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polaris.data.gold import read_answers
from polaris.data.problems import read_problems, repeated, survey
from polaris.data.rows import identity, read_messages
from polaris.errors import Refused
from polaris.reward.grade import grade

CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": 'What\'s $\\frac12$ of "x"?\n\tthink\t'}]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="set.jsonl"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    "spell", [json.dumps, repr, lambda value: json.dumps(value, indent=1), lambda value: value], ids=["json", "python", "lines", "object"]
)
@pytest.mark.parametrize("name", ["set.jsonl", "set.parquet"])
def test_objects_and_messages_may_be_text(write, spell, name):
    row = {
        "prompt": spell(CHAT),
        "reward_model": spell({"ground_truth": '["390", "\\\\frac{1}{2}"]', "style": "rule"}),
        "extra_info": spell({"index": 7}),
    }
    (problem,) = read_problems(write([row], name), "train")
    assert (problem.id, problem.messages, problem.ground_truth) == ("7", CHAT, ("390", "\\frac{1}{2}"))
    assert problem.row == row


def test_a_problem_that_looks_like_an_object_stays_text():
    for text in ('{"a", "b"} is a set. How many subsets has it?', "[{'x'}] ?", "{'a': 1} is a dict", '{"a": 1}', '[{"a": 1}]'):
        assert read_messages({"problem": text}, "f:1") == [{"role": "user", "content": text}]
    assert identity({"extra_info": "not an object"}) is None


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ('["390"]', ("390",)),
        (['["390"]', "2"], ("390", "2")),
        ([["390"], [["2"]]], ("390", "2")),
        ("[1, 2]", "[1, 2]"),
        (["[0,1)"], ("[0,1)",)),
        (None, ()),
        ([None], ()),
        (["390", None], ("390",)),
        (3, 3),
        ([], ()),
    ],
)
def test_answers_are_read_alike_from_every_column(value, answers):
    assert read_answers(value, "f:1") == answers


def test_decimals_of_parquet_are_answers(write):
    table = pa.table({"problem": ["p"], "answer": pa.array([pa.scalar("3.50").cast(pa.decimal128(5, 2))])})
    path = write([], "set.jsonl").replace(".jsonl", ".parquet")
    pq.write_table(table, path)
    (problem,) = read_problems(path, "")
    assert grade("\\boxed{3.5}", problem.ground_truth, require_thinking=False).kind == "correct"


@pytest.mark.parametrize("value", [True, [True], [["1", "2"]], {"a": 1}, b"1"])
def test_other_values_are_refused(value):
    with pytest.raises(Refused, match=r"f:3 has the answer .*; expected text, a number, or a list of those; fix or remove the row"):
        read_answers(value, "f:3")


DAPO = [
    {
        "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
        "reward_model": {"ground_truth": str(i + 1)},
        "extra_info": {"index": f"uuid-{i}"},
    }
    for i in range(17)
]


@pytest.mark.parametrize("name", ["set.jsonl", "set.parquet"])
def test_repeated_rows_are_held_once_and_counted(write, name):
    path = write([row for _ in range(100) for row in DAPO], name)
    found = survey(path, "train")
    assert [problem.id for problem in found.problems] == [f"uuid-{i}" for i in range(17)]
    assert [problem.source for problem in found.problems] == [f"{path}:{i + 1}" for i in range(17)]
    assert [problem.copies for problem in found.problems] == [99] * 17
    assert (repeated(found.problems), found.rows, found.errors) == (99 * 17, 1700, [])


def test_columns_that_nobody_reads_do_not_make_other_content(write):
    rows = [{"id": "a", "problem": "p", "answer": float("nan"), "level": level, "rate": f"{level}/8"} for level in (1, 1, 2)]
    assert survey(write(rows), "train").problems[0].copies == 2
    clash = survey(write(rows), "train", pass_rates="rate")
    assert (clash.problems[0].copies, len(clash.clashes)) == (1, 1)


@pytest.mark.parametrize(
    ("first", "again"), [("2", 2), (2, " 2"), (2.0, 2), ('["2", "3"]', ["3", "2"]), (["2", ""], "2"), (float("nan"), float("nan"))]
)
def test_an_answer_that_is_spelt_in_another_type_is_the_same_content(write, first, again):
    rows = [{"id": "a", "problem": "p", "answer": answer} for answer in (first, again)]
    assert [problem.copies for problem in survey(write(rows), "train").problems] == [1]


@pytest.mark.parametrize("change", [{"answer": "2"}, {"answer": 10}, {"answer": ["1", "2"]}, {"answer": None}, {"problem": "q"}])
def test_one_id_with_other_content_is_an_error_that_names_both(write, change):
    rows = [{"id": "a", "problem": "p", "answer": "1"}, {"problem": "b", "answer": "1"}]
    path = write([*rows, rows[0] | change, rows[0]])
    with pytest.raises(Refused, match=rf"set\.jsonl:3 has other content but the id 'a' of {path}:1; make `id`"):
        read_problems(path, "train")


def test_rows_that_cannot_be_used_are_counted_in_the_error(write):
    path = write([{"problem": "p", "answer": "1"}, {"problem": "", "answer": "1"}, {"problem": "q", "answer": True}])
    with pytest.raises(Refused, match=r"set\.jsonl:2 has no problem .* \(1 more rows cannot be used; `polaris data check .*set\.jsonl`"):
        read_problems(path, "train")


def test_a_chat_that_brings_the_answer_along_is_no_problem(write):
    chat = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    rows = [{"prompt": chat, "answer": "2"}, {"prompt": [*chat, {"role": "user", "content": "2+2?"}], "answer": "4"}]
    found = survey(write(rows), "train")
    assert [row.reason for row in found.broken] == ["a chat that ends with the assistant"]
    assert [problem.ground_truth for problem in found.problems] == ["4"]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"text": "p"}], "text"),
        ([{"problem": "p"}] * 2, "problem"),
        ([{"problem": "p", "reward_model": {"style": "rule"}}], r"problem, reward_model\.style"),
    ],
)
def test_a_set_without_the_columns_is_refused_with_those_it_has(write, rows, columns):
    with pytest.raises(Refused, match=rf"set\.jsonl:1 has .*columns {columns}; expected `prompt`.*or name .*: data\.columns"):
        survey(write(rows), "train")


def test_blank_lines_count_in_names_and_ids(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"problem": "p", "answer": "1"}\n\n{"problem": "q"}\n')
    first, second = read_problems(str(tmp_path / "a.jsonl"), "")
    assert [first.source, first.id] == [f"{tmp_path}/a.jsonl:2", "row-2"]
    assert [second.source, second.id] == [f"{tmp_path}/a.jsonl:4", "row-4"]
