"""A set in a format of the user's own: columns, answers, system prompts, functions, and sets of the hub."""

import json
from pathlib import Path

import pytest

from polaris.config.data import DataConfig, SetConfig
from polaris.config.recipe import EvalConfig
from polaris.config.schema import RunConfig
from polaris.data.problems import read_problems, rejected, survey
from polaris.data.reading import PLAIN, Reading, held_out_source, training_sources
from polaris.data.rows import identity, read_messages
from polaris.data.sources import read_rows
from polaris.errors import Refused
from polaris.reward.grade import grade

AIME = Path(__file__).resolve().parents[3] / "shared" / "data" / "train" / "deepscaler_aime.json"
GSM8K = [
    {"question": "Two and two?", "answer": "2 + 2 = 4.\n#### 4", "uid": "a", "level": 1},
    {"question": "No mark?", "answer": "It is 5.", "uid": "b", "level": 1},
    {"question": "A number?", "answer": 6, "uid": "c", "level": 1},
]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="set.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_gsm8k_is_read_by_columns_and_answer(write):
    reading = Reading(columns={"prompt": "question", "answer": "answer", "id": "uid"}, answer="####")
    problems = read_problems(write(GSM8K), "train", reading=reading)
    assert [(one.id, one.text, one.ground_truth) for one in problems] == [
        ("a", "Two and two?", "4"),
        ("b", "No mark?", ()),
        ("c", "A number?", ()),
    ]
    assert [error and error.reason for error in map(rejected, problems)] == [None, *["no answer by data.answer = '####'"] * 2]
    assert problems[0].row == GSM8K[0]


def test_columns_within_columns_also_as_json_text(write):
    for spell in (dict, json.dumps):
        row = {"data": spell({"q": "1+1?", "gold": {"value": "2"}}), "meta": spell({"n": 7})}
        reading = Reading(columns={"prompt": "data.q", "answer": "data.gold.value", "id": "meta.n"})
        (problem,) = read_problems(write([row]), "train", reading=reading)
        assert (problem.id, problem.text, problem.ground_truth) == ("7", "1+1?", "2")
    assert identity({"a.b": 3, "a": {"b": 4}}, Reading(columns={"id": "a.b"})) == "3", "a column of that very name comes first"


@pytest.mark.parametrize("ours", ["prompt", "answer", "id", "system"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(write, ours):
    columns = {"prompt": "question", "answer": "answer"} | {ours: "other"}
    with pytest.raises(
        Refused, match=rf"no column [`']other.*there is question, answer, uid, level.*|data\.columns\.{ours}; there is question"
    ):
        read_problems(write(GSM8K), "train", reading=Reading(columns=columns))


def test_messages_are_a_usual_column_and_end_with_the_user(write):
    chat = [{"role": "user", "content": "1+1?"}]
    rows = [{"messages": chat, "answer": "2"}, {"messages": [*chat, {"role": "assistant", "content": "2"}], "answer": "2"}]
    found = survey(write(rows), "train")
    assert [problem.messages for problem in found.problems] == [chat]
    assert [row.reason for row in found.broken] == ["a chat that ends with the assistant"]


def test_a_system_message_is_the_chats_own_else_the_columns_else_the_configurations():
    reading = Reading(columns={"system": "rules"}, system_prompt="general")
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "q"}]
    assert read_messages({"prompt": own, "rules": "row"}, "f:1", reading) == own
    assert read_messages({"prompt": "q", "rules": "row"}, "f:1", reading)[0] == {"role": "system", "content": "row"}
    assert [m["content"] for m in read_messages({"prompt": "q", "rules": None}, "f:1", reading)] == ["general", "q"]
    assert [m["role"] for m in read_messages({"prompt": "q"}, "f:1", PLAIN)] == ["user"]


def test_a_list_of_answers_is_read_item_by_item(write):
    rows = [{"question": "q", "answer": ["a #### 1", "b #### 2", "c"]}]
    (problem,) = read_problems(write(rows), "train", reading=Reading(answer="####"))
    assert problem.ground_truth == ("1", "2")


def test_rows_without_answers_are_allowed_where_the_check_allows_them(write):
    path = write([{"question": "Write a poem."}, {"question": "Another."}])
    with pytest.raises(Refused, match="no answer among the columns question"):
        read_problems(path, "train")
    problems = read_problems(path, "train", check=lambda ground_truth: None)
    assert [rejected(problem, lambda ground_truth: None) for problem in problems] == [None, None]
    assert rejected(problems[0]).reason == "no answer"


@pytest.fixture
def mine(tmp_path):
    def mine(body, **options):
        (tmp_path / "mine.py").write_text(body)
        return list(read_rows(f"{tmp_path}:mine:prompts", "train", Reading(options=options)))

    return mine


def test_a_function_yields_rows_with_its_options(mine):
    rows = mine("def prompts(size=1):\n    for i in range(size):\n        yield {'question': str(i), 'answer': i}\n", size=2)
    assert rows == [("mine:prompts:1", {"question": "0", "answer": 0}), ("mine:prompts:2", {"question": "1", "answer": 1})]
    assert len(mine("def prompts():\n    return [{'question': 'q', 'answer': 1}]\n")) == 1
    row = "{'question': np.array(['q']), 'answer': np.int64(3), 'more': {'x': (np.float32(1), np.arange(2))}}"
    numpy = f"import numpy as np\ndef prompts():\n    yield {row}\n"
    assert mine(numpy) == [("mine:prompts:1", {"question": ["q"], "answer": 3, "more": {"x": [1.0, [0, 1]]}})]


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (
            "def prompts():\n    yield {'a': 1}\n    raise KeyError('gone')\n",
            {},
            r"data\.path = 'mine:prompts' failed: KeyError: 'gone' .*mine\.py, line 3",
        ),
        ("def prompts():\n    yield {'a': 1}\n", {"n": 1}, r"failed: TypeError: .*unexpected keyword argument 'n'.*data\.options"),
        ("def prompts():\n    return 3\n", {}, "returned a int; let it yield rows"),
        ("def prompts():\n    return {'a': 1}\n", {}, "returned a dict; let it yield rows"),
        ("def prompts():\n    yield 'a'\n", {}, "mine:prompts:1 is a str, not an object"),
        ("def prompts():\n    yield from ()\n", {}, "mine:prompts has no rows"),
        ("prompts = 3\n", {}, "is a int; name a function that yields rows"),
    ],
)
def test_a_function_that_fails_is_refused_with_its_place(mine, body, options, message):
    with pytest.raises(Refused, match=message):
        mine(body, **options)


def test_subset_and_options_are_refused_where_they_mean_nothing(write, monkeypatch):
    path = write(GSM8K)
    with pytest.raises(Refused, match=r"data\.subset = 'main' is for a Hugging Face dataset"):
        list(read_rows(path, "train", Reading(subset="main")))
    with pytest.raises(Refused, match=r"data\.options are arguments of a function"):
        list(read_rows(path, "train", Reading(options={"a": 1})))
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *place, split, revision: asked.append((*place, split, revision)) or [{"q": 1}])
    assert len(list(read_rows("openai/gsm8k@v1", "train", Reading(subset="main")))) == 1
    assert asked == [("openai/gsm8k", "main", "train", "v1")]


def test_a_table_takes_what_it_leaves_out_from_data_and_its_name_from_its_path():
    paths = ["openai/gsm8k@v1", "sets/train.v2.jsonl", "/home/me:mine:prompts", "embedded:train", "aime24"]
    data = DataConfig(
        sets=tuple(SetConfig(path=path) for path in paths), columns={"prompt": "q"}, answer="####", system_prompt="s", split="all"
    )
    sources = training_sources(data)
    assert [source.name for source in sources] == ["gsm8k", "train.v2", "prompts", "train", "aime24"]
    forms = {(one.split, one.reading.answer, one.reading.columns["prompt"], one.reading.system_prompt) for one in sources[:4]}
    assert forms == {("all", "####", "q", "s")}
    own = SetConfig(path="a", columns={}, answer="whole", split="b", system_prompt="t")
    (source,) = training_sources(DataConfig(sets=(own,), columns={"prompt": "q"}, answer="####"))
    assert (source.name, source.split, source.reading) == ("", "b", Reading(key="data.sets.0", system_prompt="t")), "one set has no name"
    with pytest.raises(Refused, match=r"two tables of data\.sets have the name 'a'"):
        training_sources(DataConfig(sets=(SetConfig(path="x/a.jsonl"), SetConfig(path="y/a.parquet"))))


def test_the_held_out_set_is_read_as_data_says_unless_eval_says_otherwise():
    data = DataConfig(path="openai/gsm8k", subset="main", columns={"prompt": "q"}, answer="####", system_prompt="s")
    source = held_out_source(RunConfig(data=data, eval=EvalConfig(path="x")))
    assert source.reading == Reading(key="eval", columns={"prompt": "q"}, answer="####", system_prompt="s")
    source = held_out_source(RunConfig(data=data, eval=EvalConfig(path="x", subset="b", columns={}, answer="whole")))
    assert source.reading == Reading(key="eval", subset="b", system_prompt="s")
    source = held_out_source(RunConfig(data=data, eval=EvalConfig(path="aime24")))
    assert source.reading == Reading(key="eval", system_prompt="s"), "a set of the paper has its own columns"
    assert held_out_source(RunConfig(data=data)) is None


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            DataConfig,
            {"columns": {"question": "prompt"}},
            r"data\.columns\.question is unknown; write our name \(prompt, answer, id, system\)",
        ),
        (DataConfig, {"path": "a", "sets": (SetConfig(path="b"),)}, "keep one of the two"),
        (DataConfig, {"subset": "a", "sets": (SetConfig(path="b"),)}, "keep one of the two"),
        (DataConfig, {"sets": (SetConfig(path="b"), SetConfig(path="c", weight=1))}, "give every set one, or none"),
        (SetConfig, {}, "has no path"),
        (SetConfig, {"path": "a", "name": "a/b"}, "must be a word without '/'"),
        (SetConfig, {"path": "a", "weight": 0.0}, "must be above 0"),
        (SetConfig, {"path": "a", "weight": float("inf")}, "must be finite"),
        (EvalConfig, {"fraction": 1.0}, r"eval\.fraction = 1\.0 must lie between 0 and 1"),
        (EvalConfig, {"fraction": 0.1, "path": "a"}, "two held-out sets; keep one"),
        (EvalConfig, {"columns": {"a": "b"}}, r"eval\.columns\.a is unknown"),
    ],
)
def test_bad_values_are_refused_with_the_key_and_the_remedy(section, values, message):
    with pytest.raises(Refused, match=message):
        section(**values)


def test_an_answer_pattern_is_checked_before_a_row_is_read(write):
    with pytest.raises(Refused, match=r"eval\.answer = '\(' is no regular expression"):
        read_problems(write(GSM8K), "train", reading=Reading(key="eval", answer="("))


@pytest.mark.skipif(not AIME.is_file(), reason=f"the real set is not at {AIME}")
def test_the_boxes_of_real_solutions_are_the_answers_that_the_set_gives_beside_them():
    """975 solutions to AIME problems by people; two have no box."""
    problems = read_problems(str(AIME), "", reading=Reading(columns={"answer": "solution"}, answer="boxed"))
    assert [rejected(one).reason for one in problems if not one.ground_truth] == ["no answer by data.answer = 'boxed'"] * 2
    verdicts = [grade(f"\\boxed{{{one.ground_truth}}}", one.row["answer"], require_thinking=False) for one in problems if one.ground_truth]
    assert [verdict.kind for verdict in verdicts] == ["correct"] * 973
