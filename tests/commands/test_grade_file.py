"""`polaris grade`: columns, counts, disagreements, the graded file, and what is said about bad input."""

import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from polaris.commands.grading.grade_file import grade_rows, summarise_grades
from polaris.commands.grading.report import grade_report
from polaris.commands.grading.response_rows import Columns, read_responses
from polaris.reward.grade import GRADER_VERSION
from polaris.reward.pool import GraderPool

CASES = Path(__file__).resolve().parents[3] / "shared" / "data" / "grader_cases.jsonl"
HANG = "\\boxed{\\sum_{n=1}^{10^9}\\sin(n^n)x^n}"
ROWS = [
    {"response": ["\\boxed{4}", "\\boxed{5}", "four", "\\boxed{1+x}"], "answer": 4.0, "correct": [True, True, 0, "wrong"]},
    {
        "response": ["\\boxed{x+1}", "\\boxed{1+x}", "\\boxed{\\frac{2x+2}{2}}", "\\boxed{9^{9^{9}}}"],
        "answer": "1+x",
        "correct": [1, 1, 0, 0],
    },
]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="responses.jsonl"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def polaris(command):
    """`polaris grade` with one worker."""
    return partial(command, "grade", "--workers=1")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_counts_disagreements_and_the_graded_file(write, polaris, tmp_path):
    path = write(ROWS)
    status, out, _ = polaris(path, "--output", tmp_path / "out" / "graded.jsonl")
    assert status == 0
    assert out.splitlines() == [
        f"{path}: 8 responses to 2 problems, grader {GRADER_VERSION} (strict)",
        "avg@4      50.00%",
        "pass@4     100.00%",
        "no answer  12.50% (1)",
        "ungradable 1, of which killed 0",
        "agreement with the reference: 6 of 8 (75.00%)",
        f"  {path}:1 response 2 of 4: answer 5, gold 4.0: grader wrong, reference correct",
        f"  {path}:2 response 3 of 4: answer \\frac{{2x+2}}{{2}}, gold 1+x: grader correct (equal), reference not correct",
        f"wrote {tmp_path / 'out' / 'graded.jsonl'}",
    ]
    graded = read(tmp_path / "out" / "graded.jsonl")
    assert [{key: value for key, value in row.items() if key != "graded"} for row in graded] == ROWS
    assert [[one["verdict"] for one in row["graded"]] for row in graded] == [
        ["correct", "wrong", "no_answer", "wrong"],
        ["correct", "correct", "correct", "ungradable"],
    ]
    assert graded[0]["graded"][1] == {"verdict": "wrong", "reason": "", "answer": "5", "grader": GRADER_VERSION, "mode": "strict"}
    assert graded[1]["graded"][3]["reason"]


def test_a_graded_file_can_be_graded_again_and_compared(write, polaris, tmp_path):
    path = write([{"response": "\\boxed{5 \\text{ or } 7}", "answer": "5"}, {"response": "\\boxed{5}", "answer": "5"}])
    assert "agreement" not in polaris(path, "--output", tmp_path / "strict.jsonl")[1]
    out = polaris(tmp_path / "strict.jsonl", "--mode", "deepscaler", "--output", tmp_path / "both.jsonl")[1]
    assert "grader 2 (deepscaler)".replace("2", GRADER_VERSION) in out
    assert "agreement with the reference: 1 of 2 (50.00%)" in out
    assert read(tmp_path / "both.jsonl")[0]["graded"][0]["mode"] == "deepscaler"


@pytest.mark.parametrize("name", ["responses.parquet", "responses.jsonl"])
def test_columns_of_the_users_choice(write, polaris, name):
    rows = [
        {"meta": {"uid": "p"}, "text": "\\boxed{1}", "response": "no", "reward_model": {"ground_truth": ["1"], "style": "rule"}, "ok": 1.0},
        {"meta": {"uid": "p"}, "text": "\\boxed{2}", "response": "no", "reward_model": {"ground_truth": ["1"], "style": "rule"}, "ok": 1.0},
        {
            "meta": {"uid": "q"},
            "text": "\\boxed{2}",
            "response": "no",
            "reward_model": {"ground_truth": ["3", "2"], "style": "rule"},
            "ok": 1.0,
        },
    ]
    path = write(rows, name)
    out = polaris(path, "--response", "text", "--reference", "ok", "--id", "meta.uid")[1].splitlines()
    assert out[0].endswith(f"3 responses to 2 problems, grader {GRADER_VERSION} (strict)")
    assert out[1:3] == ["avg@1-2      75.00%", "pass@1-2     100.00%"]
    assert out[-1] == f"  {path}:2 (id p): answer 2, gold 1: grader wrong, reference correct"


def test_samples_of_lm_evaluation_harness(write, polaris):
    row = {"doc_id": 17, "doc": {"problem": "p"}, "target": "\\frac{1}{2}", "resps": [["\\boxed{0.5}", "none"]], "filtered_resps": ["x"]}
    path = write([{**row, "exact_match": None}, {**row, "doc_id": 18, "resps": [["\\boxed{3}"]], "exact_match": 1.0}])
    out = polaris(path)[1].splitlines()
    assert out[1:3] == ["avg@1-2      25.00%", "pass@1-2     50.00%"]
    assert out[-1] == f"  {path}:2 (id 18): answer 3, gold \\frac{{1}}{{2}}: grader wrong, reference correct"


def test_thinking_counts_only_where_it_is_required(write, polaris):
    path = write([{"response": "\\boxed{1}", "answer": "1"}, {"response": "\\boxed{2}</think>\\boxed{1}", "answer": "1"}])
    assert "avg@1      100.00%" in polaris(path)[1]
    out = polaris(path, "--require-thinking")[1]
    assert "avg@1      50.00%" in out
    assert "no answer  50.00% (1)" in out


def test_thinking_is_required_where_most_responses_open_it(write, polaris):
    thought = {"response": "<think>\\boxed{2}</think>\\boxed{1}", "answer": "1"}
    rows = [thought, thought, {"response": "\\boxed{1}", "answer": "1"}]
    out = polaris(write(rows))[1]
    assert "avg@1      66.67%" in out
    assert "(strict, an answer counts only after </think>)" in out.splitlines()[0]
    assert "avg@1      100.00%" in polaris(write(rows), "--no-require-thinking")[1]
    out = polaris(write([thought, {"response": "<think>\\boxed{1}", "answer": "1"}, {"response": "1", "answer": "1"}]))[1]
    assert "no answer  66.67% (2): 2 no </think>" in out


def test_killed_responses_are_counted_and_the_rest_is_graded(write):
    path = write([{"response": ["\\boxed{y+x}", HANG], "answer": "x+y"}])
    with GraderPool(1, 1.0, require_thinking=False) as pool:
        told = []
        graded = grade_rows(read_responses(path, Columns()), pool, told.append)
        summary = summarise_grades(graded, by_id=False)
    assert told == [2]
    assert graded[0].verdicts[0].kind == "correct"
    assert summary.killed == pool.num_killed == sum(verdict.lost for verdict in graded[0].verdicts)
    assert summary.ungradable >= summary.killed
    assert f"ungradable {summary.ungradable}, of which killed {summary.killed}" in grade_report(summary, "f", "strict")


def test_order_is_kept_over_many_batches(write):
    rows = [{"response": [f"\\boxed{{{i}}}", f"\\boxed{{{i}+x}}"], "answer": f"x+{i}" if i % 2 else str(i)} for i in range(700)]
    with GraderPool(2, 5.0, require_thinking=False) as pool:
        graded = grade_rows(read_responses(write(rows), Columns()), pool, lambda done: None)
    for i, one in enumerate(graded):
        assert [verdict.kind == "correct" for verdict in one.verdicts] == [i % 2 == 0, i % 2 == 1]


def test_an_ungradable_gold_is_named(write, polaris):
    out = polaris(write([{"id": "a", "response": "\\boxed{1}", "answer": None}, {"id": "b", "response": "\\boxed{1}", "answer": 1}]))[1]
    assert "rows with an ungradable gold answer: 1; no response to them can be correct" in out
    assert ":1 (id a): no answer" in out


def test_a_missing_gold_is_none_and_equal_reasons_are_counted(write, polaris):
    rows = [{"response": "\\boxed{1}", "answer": '["1", "one"]'}, *[{"response": "\\boxed{1}"}] * 3, {"response": "x", "answer": "proof"}]
    path = write(rows)
    out = polaris(path, "--ground-truth", "answer")[1].splitlines()
    assert out[1] == "avg@1      20.00%"
    assert out[-6:] == [
        "rows with an ungradable gold answer: 4; no response to them can be correct",
        "  no answer: 3 rows",
        *(f"    {path}:{line}" for line in (2, 3, 4)),
        f"  {path}:5 'proof': a placeholder, not an answer",
    ]


def test_a_gold_inside_json_text_is_found(write, polaris):
    path = write([{"response": "\\boxed{1/2}", "reward_model": json.dumps({"ground_truth": '["\\\\frac{1}{2}"]'})}])
    assert "avg@1      100.00%" in polaris(path)[1]


def test_text_cannot_forge_lines_of_the_report(write, polaris):
    path = write([{"id": "i\nfake", "response": "\\boxed{1\n\x1b[2Javg@1 100%}", "answer": "2", "reference": "correct"}])
    out = polaris(path)[1]
    assert len(out.splitlines()) == 7
    assert "\x1b" not in out


def test_half_a_surrogate_pair_is_written_and_read_again(write, polaris, tmp_path):
    path = write([{"response": "\\boxed{1} \ud800", "answer": "1"}])
    assert polaris(path, "--output", tmp_path / "out.jsonl")[0] == 0
    assert read(tmp_path / "out.jsonl")[0]["graded"][0]["verdict"] == "correct"


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([], [], "has no rows"),
        ([{"text": "x", "answer": "1"}], [], "but text, answer; name the right one with --response"),
        ([{"response": "x", "meta": {"a": 1}}], [], "but response, meta.a; name the right one with --ground-truth"),
        ([{"response": "x", "answer": "1"}], ["--response", "text"], "has no column `text` but response, answer"),
        ([{"response": "x", "answer": "1"}, {"answer": "1"}], [], ":2 has no column `response` but answer"),
        ([{"response": "x", "answer": "1"}], ["--id", "uid"], "has no column `uid`"),
        ([{"response": "x", "answer": "1"}], ["--ground-truth", "gold"], ":1 has no column `gold` but response, answer"),
        ([{"response": 3, "answer": "1"}], [], "`response` is 3; expected a text, or a list of one or more texts"),
        ([{"response": [], "answer": "1"}], [], "`response` is []"),
        ([{"resps": [[["-1.5", "False"]]], "target": "1"}], [], "`resps` is [[['-1.5', 'False']]]"),
        ([{"response": "x", "answer": {"a": 1}}], [], "has the answer {'a': 1}; expected text, a number"),
        ([{"response": "x", "answer": "1", "correct": "perhaps"}], [], "`correct` is 'perhaps'; expected true, false, 1, 0"),
        ([{"response": ["x", "y"], "answer": "1", "correct": 1}], [], "`correct` has 1 verdicts for 2 responses"),
        ([{"response": "x", "answer": "1"}], ["--timeout", "0"], "--timeout 0.0 must lie in (0, 3600]"),
        ([["response"]], [], "is a list, not an object"),
        ([{"response": "x", "answer": None}] * 2, [], "no row has a gold answer in `answer`; name another column with --ground-truth"),
        ([{"response": "x", "answer": "1"}], ["--output", "graded.parquet"], "--output graded.parquet must end in .jsonl"),
    ],
)
def test_bad_input_is_one_line_and_status_2(write, polaris, rows, arguments, message):
    status, out, error = polaris(write(rows), *arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_bad_files_are_one_line_and_status_2(polaris, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"response": "x", "answer": 1}\n{"resp')
    (tmp_path / "bad.parquet").write_text("no parquet")
    (tmp_path / "bad.csv").write_text("response,answer")
    for name, message in (
        ("none.jsonl", "does not exist"),
        ("bad.jsonl", "line 2: not valid JSON"),
        ("bad.parquet", "not a readable parquet file"),
        ("bad.csv", "unknown format"),
        ("", "is a folder; give a .parquet"),
    ):
        status, _, error = polaris(tmp_path / name)
        assert status == 2
        assert message in error
    status, _, error = polaris(tmp_path / "bad.jsonl", "--output", tmp_path / "bad.jsonl")
    assert (status, "is the file that is read" in error) == (2, True)


def test_a_reference_that_does_not_fit_can_be_turned_off(write, polaris):
    path = write([{"response": ["x", "y"], "answer": "1", "correct": 1}])
    assert polaris(path, "--reference", "")[0] == 0


def test_a_bar_on_a_terminal_and_a_clean_report_elsewhere(write):
    path = write([{"response": "\\boxed{1+x}", "answer": "x+1"}] * 600)
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "polaris.cli", "grade", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}) as process:
        os.close(slave)
        shown = b""
        while chunk := _read_terminal(master):
            shown += chunk
        out = process.stdout.read()
    assert process.returncode == 0
    assert b"600/600" in shown
    assert out.splitlines()[1] == b"avg@1      100.00%"
    assert b"\x1b" not in out


def _read_terminal(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.skipif(not CASES.is_file(), reason=f"grader cases are not at {CASES}")
def test_the_collected_cases_run_through_the_command(polaris, tmp_path):
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    rows = [{**case, "prediction": f"\\boxed{{{case['prediction']}}}"} for case in cases]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    status, out, _ = polaris(tmp_path / "cases.jsonl")
    assert status == 0
    agreed = next(line for line in out.splitlines() if line.startswith("agreement"))
    assert int(agreed.split()[4]) >= 0.9 * len(cases)
    assert len([line for line in out.splitlines() if ": grader " in line]) == len(cases) - int(agreed.split()[4])
