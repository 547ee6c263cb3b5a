"""`polaris data check`: every kind of bad row is found, named and left out of the clean set."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from polaris.commands.dataset.answer_types import answer_type
from polaris.commands.dataset.check import check_problems
from polaris.data.gold import shortened
from polaris.data.problems import read_problems
from polaris.reward.pool import GraderPool
from polaris.types import Verdict

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SEEN = "Find the sum of all integer bases b greater than nine for which 17 in base b divides 97 in base b."
ROWS = [
    {"id": "good", "problem": "What is one and one?", "answer": "2", "level": 3},
    {"id": "null", "problem": "What is nothing?", "answer": None},
    {"id": "again", "problem": "what is  one and one", "answer": 3},
    {"id": "seen", "problem": f"{SEEN} Think.", "answer": "70"},
    {"id": "seen again", "problem": SEEN, "answer": "70"},
    {"id": "long", "problem": "word " * 200, "answer": "\\frac{1}{2}"},
    {"id": "empty", "problem": "What is one and one?", "answer": ""},
    {"id": "open", "problem": "What is open?", "answer": "<think> 5"},
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "eval.json").write_text(json.dumps([{"question": SEEN}, {"question": "What is the time?"}]), encoding="utf-8")
    raw = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", chat_template=template).save_pretrained(tmp_path / "model")
    return tmp_path


def test_every_kind_of_bad_row_is_named_and_left_out(files, command):
    arguments = (
        "--against",
        files / "eval.json",
        "--model",
        files / "model",
        "--max-prompt-tokens",
        100,
        "--output",
        files / "clean.jsonl",
    )
    status, out, _ = command("data", "check", files / "set.jsonl", *arguments)
    assert status == 0
    assert [json.loads(line) for line in (files / "clean.jsonl").read_text(encoding="utf-8").splitlines()] == [ROWS[0]]
    lines = out.splitlines()
    at = f"{files / 'set.jsonl'}:"
    for expected in (
        f"{files / 'set.jsonl'}: 8 problems",
        "answers: integer 4, fraction 1, expression 1",
        "ungradable answers: 2",
        f"  {at}2 (id null): no answer",
        f"  {at}7 (id empty): empty",
        "answers that are not correct in a box: 1",
        "duplicates: 1",
        f"  {at}3 (id again) repeats {at}1, answers 3 and '2'",
        "prompts too long: 1",
        f"  {at}6 (id long): 200 tokens",
        f"  {at}4 (id seen) ~ eval.json 1: 100% in shared runs",
        f"  {at}5 (id seen again) ~ eval.json 1: same text",
        f"wrote {files / 'clean.jsonl'}",
    ):
        assert expected in lines
    assert any(line.startswith(f"  {at}8 (id open): \\boxed{{<think> 5}}") for line in lines)
    assert any(line.split() == ["eval.json", "2", "1", "1", "0"] for line in lines)
    assert "left: 1 of 8 (dropped: overlap 2, ungradable 2, too long 1, duplicate 1, unequal to itself 1)" in lines


def test_a_clean_set_is_clean(files, command):
    command("data", "check", files / "set.jsonl", "--against", files / "set.jsonl", "--output", files / "clean.jsonl")
    assert (files / "clean.jsonl").read_bytes() == b""
    command("data", "check", files / "set.jsonl", "--against", files / "eval.json", "--output", files / "clean.jsonl")
    status, out, _ = command("data", "check", files / "clean.jsonl", "--against", files / "eval.json", "--strict")
    assert status == 0
    assert out.splitlines()[-1] == "left: 2 of 2"


def test_strict_is_status_2_after_the_report(files, command):
    status, out, error = command("data", "check", files / "set.jsonl", "--strict")
    assert status == 2
    assert "overlap: not looked for" in out
    assert error.splitlines()[-1].startswith("polaris: 2 ungradable answers in")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "does not exist"),
        (["set.jsonl", "--against", "none.json"], "does not exist"),
        (["set.jsonl", "--model", "./eval.json"], "is a file; give the folder with the tokenizer"),
        (["set.jsonl", "--model", "./none"], "has no readable tokenizer"),
        (["set.jsonl", "--output", "set.jsonl"], "is the file that is read"),
        (["set.jsonl", "--output", "clean.parquet"], "must end in .jsonl"),
    ],
)
def test_bad_input_is_one_line_and_status_2(files, command, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    status, out, error = command("data", "check", *arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_show_limits_the_lists_and_equal_reasons_are_counted(tmp_path, command):
    rows = [{"problem": f"same {i // 30}", "answer": "" if i < 30 else "1"} for i in range(60)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = command("data", "check", tmp_path / "set.jsonl", "--show", 2)[1]
    assert "  empty: 30 rows" in out.splitlines()
    assert out.count("empty") == 1
    assert "    and 28 more" in out.splitlines()
    assert out.count(" repeats ") == 2
    assert "  and 27 more (--show 29)" in out.splitlines()


def test_a_gradable_copy_of_an_ungradable_row_stays(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"problem": "p q", "answer": ""}\n{"problem": "p q", "answer": "1"}\n{"problem": "p q", "answer": "1"}\n')
    with GraderPool(1, 5.0, require_thinking=False) as pool:
        found = check_problems(read_problems(str(path), ""), [], pool, lengths=None, max_prompt_tokens=1, done=lambda count: None)
    assert found.dropped == {0: "ungradable", 2: "duplicate"}


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        ("204", "integer"),
        (142.0, "integer"),
        ("1,234", "integer"),
        ("$5\\text{ cm}$", "integer"),
        ("x = 3", "integer"),
        ("0.5", "decimal"),
        ("\\frac{1}{2}", "fraction"),
        ("3/4", "fraction"),
        ("(1, 2)", "tuple/interval/set"),
        ("[0,\\infty)", "tuple/interval/set"),
        ("\\{1,2\\}", "tuple/interval/set"),
        ("x^2+1", "expression"),
        ("2\\sqrt{3}", "expression"),
        ("x<y+2", "equation/inequality"),
        ("\\text{Evelyn}", "text"),
        ("east", "text"),
        ("\\text{(C)}", "multiple choice"),
        ("B", "multiple choice"),
        (("1", "2"), "alternatives"),
        (("1\n",), "integer"),
    ],
)
def test_types_of_answers(truth, kind):
    assert answer_type(truth) == kind


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real prompt sets are not at {SHARED}")
def test_every_gold_of_the_real_sets_is_correct_in_a_box():
    with GraderPool(1, 5.0, require_thinking=False) as pool:
        for path in sorted(SHARED.glob("*/*.*")):
            problems = read_problems(str(path), "")
            found = check_problems(problems, [], pool, lengths=None, max_prompt_tokens=1, done=lambda count: None)
            assert found.unequal == {}, path
            assert sum(found.types.values()) + len(found.ungradable) == len(problems)
            if path.stem == "deepscaler_math":
                assert [error.reason for error in found.ungradable.values()] == ["no answer", "no answer", "empty", "empty"]
                assert [again for again, _ in found.duplicates] == [957, 1224, 3870, 4310, 7353]


def test_an_unequal_gold_keeps_its_verdict(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"problem": "p", "answer": ["1", "}{"]}\n')
    with GraderPool(1, 5.0, require_thinking=False) as pool:
        found = check_problems(read_problems(str(path), ""), [], pool, lengths=None, max_prompt_tokens=1, done=lambda count: None)
    assert found.unequal.keys() <= {0}
    assert all(isinstance(verdict, Verdict) and verdict.kind != "correct" for _, verdict in found.unequal.values())


def test_rows_that_cannot_be_used_are_listed_and_left_out_not_fatal(tmp_path, command):
    rows = [
        {"problem": "one and one", "answer": '["2"]'},
        *({"problem": f"proof {i}", "answer": "proof"} for i in range(64)),
        {"problem": "damaged", "answer": "\frac{1}{2}"},
        {"problem": "no key"},
        {"problem": "", "answer": "1"},
        {"problem": "typed", "answer": {"value": 1}},
        {"problem": "typed", "answer": True},
        *[{"id": "twice", "problem": "two and two", "answer": "4"}] * 3,
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    status, out, _ = command("data", "check", path, "--show", 2, "--output", tmp_path / "clean.jsonl")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{path}: 68 problems in 73 rows"
    for expected in (
        "rows without a usable problem or answer: 3",
        "  an answer that is not text, a number or a list of those: 2 rows",
        f"    {path}:71 (id row-71)",
        f"  {path}:69 (id row-69): no problem in `problem`",
        "rows with id and content of an earlier one: 2, of 1 problems",
        f"  {path}:72 (id twice): 2 more",
        "ungradable answers: 66",
        "  a placeholder, not an answer: 64 rows",
        f"    {path}:3 (id row-3) 'proof'",
        "    and 62 more",
        f"  {path}:67 (id row-67) '\\x0crac{{1}}{{2}}': a form feed where LaTeX has a backslash",
        f"  {path}:68 (id row-68): no answer",
        "left: 2 of 73 (dropped: ungradable 66, unusable 3, repeated 2)",
    ):
        assert expected in lines
    assert [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text(encoding="utf-8").splitlines()] == [rows[0], rows[-1]]
    assert command("data", "check", path, "--strict")[0] == 2
    assert command("data", "check", tmp_path / "clean.jsonl", "--strict")[0] == 0


def test_a_chat_that_the_template_refuses_is_listed(files, command):
    strict = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{{ m.content }} {% endfor %}"
    (files / "model" / "chat_template.jinja").write_text(strict, encoding="utf-8")
    rows = [
        {"prompt": [{"role": role, "content": "c"}, {"role": "user", "content": f"p {role}"}], "answer": "1"} for role in ("system", "tool")
    ]
    (files / "chats.json").write_text(json.dumps(rows), encoding="utf-8")
    status, out, _ = command("data", "check", files / "chats.json", "--model", files / "model")
    assert status == 0
    assert f"  {files / 'chats.json'}:2 (id row-2): a chat that the model's template refuses" in out.splitlines()
    assert "left: 1 of 2 (dropped: unusable 1)" in out.splitlines()


def test_two_contents_of_one_id_are_an_error_after_the_report(tmp_path, command):
    rows = [{"id": "a", "problem": "one", "answer": "1"}, {"id": "a", "problem": "two", "answer": "2"}]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, error = command("data", "check", path, "--output", tmp_path / "clean.jsonl")
    assert status == 2
    assert f"  {path}:2 (id a): other content than {path}:1, which has the same id" in out.splitlines()
    assert error.splitlines()[-1].startswith(f"polaris: 1 rows of {path} have the id of another row; make ids unique, or use")
    assert command("data", "check", tmp_path / "clean.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("", "the chat template does not say whether an answer counts only after </think>"),
        ("<think>", "an answer counts only after </think>: the chat template opens <think>"),
        ("<think></think>", "an answer counts without </think>: the chat template closes thinking"),
    ],
)
def test_the_form_that_prompts_ask_for_and_what_the_template_says_of_thinking(files, command, ending, said):
    template = files / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + ending)
    out = command("data", "check", files / "set.jsonl", "--model", files / "model")[1]
    assert "answers asked for in: no form 8" in out
    assert "warning: 8 of 8 prompts do not ask for a box" in out
    assert 'data.prompt_suffix = "' in out
    assert said in out.splitlines()


def test_long_answers_are_cut_to_sixty_characters():
    assert shortened(repr("x" * 58)) == repr("x" * 58)
    assert shortened(repr("x" * 59)) == "'" + "x" * 56 + "..."


def test_prompts_whose_latex_lost_its_backslashes_are_named_and_kept(files, command):
    path = files / "damaged.jsonl"
    path.write_text(
        '{"problem": "Put it in \\boxed{}. 1 + 1?", "answer": "2"}\n{"problem": "What is \\frac12?", "answer": "1/2"}\n'
        '{"problem": "Put $\\\\frac42$ in \\\\boxed{}.", "answer": "2"}\n'
    )
    out = command("data", "check", path)[1].splitlines()
    start = out.index("warning: prompts that look damaged, which are kept (in JSON a backslash is written twice): 2")
    assert out[start + 1 : start + 3] == [
        f"  {path}:1 (id row-1): a backspace where LaTeX has a backslash",
        f"  {path}:2 (id row-2): a form feed where LaTeX has a backslash",
    ]
    assert "left: 3 of 3" in out


def test_a_configuration_is_checked_as_it_reads_and_asks_its_sets(files, command):
    rows = [{"q": f"What is {i} + 1?", "a": f"It is #### {i + 1}"} for i in range(3)] + [{"q": "No mark?", "a": "5"}]
    (files / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (files / "mine.py").write_text("def rows(n):\n    return [{'q': f'Is it {i}?', 'a': f'#### {i}'} for i in range(n)]\n")
    (files / "my.toml").write_text(
        f"[model]\npath = '{files / 'model'}'\n[data]\ncolumns = {{ prompt = 'q', answer = 'a' }}\nanswer = '####'\n"
        "max_prompt_tokens = 9\nprompt_suffix = 'Use \\boxed{}.'\n"
        f"[[data.sets]]\npath = '{files / 'own.jsonl'}'\n[[data.sets]]\npath = 'mine:rows'\noptions = {{ n = 2 }}\n"
    )
    status, out, error = command("data", "check", files / "my.toml")
    assert status == 0, error
    lines = out.splitlines()
    for expected in (
        f"{files / 'own.jsonl'}: 4 problems",
        "answers asked for in: \\boxed{} 4",
        f"  {files / 'own.jsonl'}:4 (id row-4): no answer by data.sets.0.answer = '####'",
        "left: 0 of 4 (dropped: too long 3, ungradable 1)",
        "nothing was written; --output CLEAN.jsonl writes the rows that are left",
        "mine:rows: 2 problems",
        "answers: integer 2",
    ):
        assert expected in lines, out
    assert not any("do not ask for a box" in line for line in lines)
    assert "--output writes one set" in command("data", "check", files / "my.toml", "--output", files / "clean.jsonl")[2]
    (files / "mine.py").write_text((files / "mine.py").read_text() + "def reward(response, ground_truth):\n    return 1.0\n")
    own = (files / "my.toml").read_text() + "[reward]\nfunction = 'mine:reward'\n"
    (files / "own.toml").write_text(own.replace("Use \\boxed{}.", "Briefly."))
    _, out, _ = command("data", "check", files / "own.toml")
    assert "left: 3 of 4 (dropped: ungradable 1)" in out.splitlines(), "a gold by data.answer is still wanted"
    assert "box" not in out, "nothing reads boxes"
    given = ("--answer", "####", "--split", "test")
    assert "leave out --split, --answer" in command("data", "check", files / "my.toml", *given)[2]


def test_columns_and_answer_of_a_set_may_be_options(files, command):
    (files / "own.jsonl").write_text('{"q": "1 + 1?", "a": "#### 2"}\n')
    flags = ("--column", "prompt=q", "--column", "answer=a", "--answer", "####")
    assert "left: 1 of 1" in command("data", "check", files / "own.jsonl", *flags)[1].splitlines()
    assert "data.columns.q is unknown" in command("data", "check", files / "own.jsonl", "--column", "q=prompt")[2]
