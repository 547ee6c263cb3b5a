"""Answers and golds that try to run code leave no trace, whichever way they enter.

Every payload would create the file `X` in the current folder, which the grading processes inherit.
"""

import itertools
import json
import subprocess
import sys

import programs
import pytest

from polaris.data.problems import read_problems, rejected
from polaris.reward.grade import grade
from polaris.reward.pool import GraderPool

PYTHON = [
    "__import__('os').system('touch X')",
    "open('X','w')",
    "exec(\"open('X','w')\")",
    "eval(\"open('X','w')\")",
    "(lambda: open('X','w'))()",
    "[open('X','w') for _ in '1'][0]",
    "getattr(__import__('o'+'s'),'system')('touch X')",
    "f\"{open('X','w')}\"",
    "().__class__.__base__.__subclasses__() and open('X','w')",
]
SYMPY = ["S(\"open('X','w')\")", "sympify(\"open('X','w')\")", "parse_expr(\"open('X','w')\")", "x.subs(x, \"open('X','w')\")"]
OTHER = [
    '\\input|"touch X"',
    "\\immediate\\write18{touch X}",
    "\\write18{touch X}",
    "\\openout5=X",
    "\\catcode`\\^=7 ^^5cinput|touch",
    "{0.__class__.__init__.__globals__[os].system}",
    "{open('X','w')}",
    "$(touch X)",
    "`touch X`",
    "1; touch X",
    '1"}\n{"answer": "__import__(\'os\').system(\'touch X\')", "ground_truth": "1", "mode": "strict"}\n',
    "\\text{open('X','w')}",
    "\\operatorname{open}('X','w')",
    "\\mathrm{__import__('os').system('touch X')}",
    "\\sqrt[open('X','w')]{2}",
    "\\frac{open('X','w')}{2}",
    "\\begin{pmatrix}open('X','w') & 1\\end{pmatrix}",
    "x_{open('X','w')}",
    "\\sum_{k=open('X','w')}^{3} k",
]
PAYLOADS = [*PYTHON, *SYMPY, *OTHER, *(f"1 + {payload}" for payload in PYTHON), *(f"\\{{{payload}, 2\\}}" for payload in PYTHON)]
GOLDS = ["x+1", "2", "\\frac{1}{2}", "(1, 2)", "\\{1, 2\\}"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder; only what the test itself puts there may be in it afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


@pytest.mark.parametrize("payload", PYTHON)
def test_the_payloads_work_where_they_are_evaluated(payload, folder):
    subprocess.run([sys.executable, "-c", f"eval({payload!r})"], check=False)
    (folder / "X").unlink()


@pytest.mark.parametrize("payload", SYMPY)
def test_the_payloads_work_where_sympy_reads_them(payload, folder):
    code = f"from sympy import *; from sympy.abc import x; eval({payload!r})"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    (folder / "X").unlink()


@pytest.mark.parametrize("mode", ["strict", "deepscaler"])
def test_answers_and_golds_in_this_process(mode):
    for payload, gold in itertools.product(PAYLOADS, GOLDS):
        assert grade(f"\\boxed{{{payload}}}", gold, require_thinking=False, mode=mode).kind != "correct"
        assert grade(f"\\boxed{{{gold}}}", payload, require_thinking=False, mode=mode).kind != "correct"


@pytest.mark.parametrize("mode", ["strict", "deepscaler"])
def test_answers_and_golds_in_the_pool(mode):
    pairs = list(itertools.product(PAYLOADS, GOLDS))
    with GraderPool(workers=2, timeout_s=20.0, require_thinking=False, mode=mode) as pool:
        before = [worker._process.pid for worker in pool._workers]
        verdicts = pool.grade([(f"\\boxed{{{payload}}}", gold) for payload, gold in pairs])
        verdicts += pool.grade([(f"\\boxed{{{gold}}}", payload) for payload, gold in pairs])
        assert [worker._process.pid for worker in pool._workers] == before
    assert not [verdict for verdict in verdicts if verdict.kind == "correct" or verdict.lost]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_golds_that_are_loaded(folder):
    path = write(folder / "given" / "set.jsonl", [{"problem": f"Problem {i}", "answer": p} for i, p in enumerate(PAYLOADS)])
    assert sum(rejected(problem) is not None for problem in read_problems(str(path), "train")) > len(PAYLOADS) // 2


def test_the_commands(folder):
    rows = [{"problem": f"Problem {i}", "response": f"\\boxed{{{p}}}", "answer": a} for i, p in enumerate(PAYLOADS) for a in (p, "x+1")]
    path = write(folder / "given" / "rows.jsonl", rows)
    out = folder / "given" / "out.jsonl"
    for mode in ("strict", "deepscaler"):
        run("grade", path, "--mode", mode, "--output", out)
        graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert len(graded) == len(rows)
        assert not [row for row in graded if row["answer"] == "x+1" and row["graded"][0]["verdict"] == "correct"]
    assert "ungradable" in run("data", "check", path, "--output", out)


def run(*arguments):
    result = programs.run("-m", "polaris.cli", *arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout
